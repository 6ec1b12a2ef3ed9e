"""Judges of play: windows in, rewards out. These only query a world model; learned.py has those that learn.

Axis letters: M windows, N tokens of a frame, h w token grid, H W C frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genie_ray.base.precision import autocast
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.novelty import Novelty
from genie_ray.rewards.windows import Windows
from world_model.genie import GenieReduxG
from world_model.tokenizer import Tokenizer
from world_model.uncertainty import PRIME_FRAMES, top_k_mean


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The rewards of M windows."""

    rewards_M: np.ndarray  # float32
    statistics: dict[str, np.ndarray]  # float32 [M] each
    maps_Mhw: np.ndarray | None  # float32; one value per token of frame t


class Judge(ABC):
    """Gives each window its reward."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Changes with anything that the rewards depend on, except what an episode has shown."""

    @abstractmethod
    def judge(self, windows: Windows) -> Judgement:
        """The windows' rewards."""

    def learn(self) -> None:
        """Learns from the windows judged last, if they may be remembered."""
        return None

    def get_state(self) -> dict[str, Any]:
        """What a restarted service needs back: tensors and plain values, by file name."""
        return {}


class UncertaintyJudge(Judge):
    """Token entropy of the world model's prediction of frame t (Savov et al. 2025, eqs. 2–4)."""

    def __init__(self, model: GenieReduxG, config: RewardConfig, version: str) -> None:
        self._model, self._config, self._version = model, config, version

    @property
    def version(self) -> str:
        return self._version

    def judge(self, windows: Windows) -> Judgement:
        entropy_MN = entropies(self._model, windows, self._config)
        top_M = top_k_mean(entropy_MN, self._config.top_k_fraction)
        return Judgement(
            rewards_M=values(self._config.scale * top_M),
            statistics={
                "entropy_mean": values(entropy_MN.mean(dim=-1)),
                "entropy_top": values(top_M),
                "entropy_max": values(entropy_MN.amax(dim=-1)),
            },
            maps_Mhw=token_maps(entropy_MN, self._model),
        )


class ProgressJudge(Judge):
    """Learning progress: the entropy under a lagged copy of the world model minus the current entropy.

    Positive where the weights swapped in since then made the model more certain (γ-progress: Kim et al. 2020,
    2007.07853, with entropy as the loss); 0 everywhere until weights are swapped.
    """

    def __init__(
        self, model: GenieReduxG, lagged: GenieReduxG, config: RewardConfig, version: str, lagged_version: str
    ) -> None:
        self._model, self._lagged, self._config = model, lagged, config
        self._version, self._lagged_version = version, lagged_version

    @property
    def version(self) -> str:
        return f"{self._version}-{self._lagged_version}"

    def judge(self, windows: Windows) -> Judgement:
        now_MN, lagged_MN = (entropies(model, windows, self._config) for model in (self._model, self._lagged))
        now_M, lagged_M = (top_k_mean(entropy, self._config.top_k_fraction) for entropy in (now_MN, lagged_MN))
        return Judgement(
            rewards_M=values(self._config.scale * (lagged_M - now_M)),
            statistics={"entropy_top": values(now_M), "entropy_lagged": values(lagged_M)},
            maps_Mhw=token_maps(lagged_MN - now_MN, self._model),
        )

    def get_state(self) -> dict[str, Any]:
        return {  # the lagged copy first, so that saved weights always have theirs
            lagged_name(self._version): self._lagged.state_dict(),
            "learning_progress": {"now": self._model.state_dict()},
        }


def lagged_name(version: str) -> str:
    """The name under which the lagged copy of these weights is saved."""
    return f"learning_progress-{version[:16]}"


class NoveltyJudge(Judge):
    """Another judge's rewards times the novelty of frame t.

    With lifelong novelty, rewards shrink as play goes on: the version says so by a "+", as for a judge that learns.
    """

    def __init__(self, judge: Judge, tokenizer: Tokenizer, novelty: Novelty) -> None:
        self._judge, self._tokenizer, self._novelty = judge, tokenizer, novelty

    @property
    def version(self) -> str:
        inner = self._judge.version
        if not self._novelty.lifelong or "+" in inner:
            return inner
        return f"{inner}+{self._novelty.incarnation}.{self._novelty.visits}"

    @torch.no_grad()
    def judge(self, windows: Windows) -> Judgement:
        assert windows.episodes is not None
        judged = self._judge.judge(windows)
        device = self._tokenizer.token_vectors().device
        arrived_M1HWC = torch.from_numpy(np.ascontiguousarray(windows.frames_M5HWC[:, -1:])).to(device)
        tokens_MN = self._tokenizer.encode(arrived_M1HWC).flatten(1).cpu().numpy()
        factors_M = self._novelty.factors(tokens_MN, windows.episodes, remember=windows.remember)
        return Judgement(
            rewards_M=judged.rewards_M * factors_M,
            statistics={**judged.statistics, "novelty": factors_M},
            maps_Mhw=judged.maps_Mhw,
        )

    def learn(self) -> None:
        self._judge.learn()

    def get_state(self) -> dict[str, Any]:
        return {**self._judge.get_state(), "novelty": self._novelty.get_state()}


def question(windows: Windows, device: torch.device) -> tuple[Tensor, Tensor]:
    """The world model's input for windows: frames t−4, t−3 [M, 2, H, W, C] and actions t−4 … t−1 [M, 4]."""
    primes_M2HWC = torch.from_numpy(np.ascontiguousarray(windows.frames_M5HWC[:, :PRIME_FRAMES]))
    return primes_M2HWC.to(device), torch.from_numpy(windows.actions_M4.astype(np.int64)).to(device)


def entropies(model: GenieReduxG, windows: Windows, config: RewardConfig) -> Tensor:
    """Normalised entropy of each token of frame t, [M, N] in [0, 1]."""
    device = model.dynamics.to_logits.weight.device
    with autocast(config.precision, device):
        return model.uncertainty(*question(windows, device))


def token_maps(values_MN: Tensor, model: GenieReduxG) -> np.ndarray:
    """Token values on the token grid, [M, h, w]."""
    return values(values_MN).reshape(-1, *model.dynamics.grid)


def values(tensor: Tensor) -> np.ndarray:
    """As float32 on the CPU."""
    return tensor.float().cpu().numpy()
