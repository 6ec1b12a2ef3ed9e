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

from genie_ray.base.precision import Precision, autocast
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.novelty import Novelty
from genie_ray.rewards.windows import Windows
from policies.rewards import WINDOW_ACTIONS
from world_model.frozen import FrozenDynamics
from world_model.genie import GenieReduxG
from world_model.tokenizer import Tokenizer
from world_model.uncertainty import PRIME_FRAMES, token_entropy, top_k_mean


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
        """Learns from the windows judged since the last time, except those that may not be remembered."""
        return None

    def forget(self) -> None:
        """Drops the windows that `learn` would learn from."""
        return None

    def get_state(self) -> dict[str, Any]:
        """What a restarted service needs back: tensors and plain values, by file name."""
        return {}


class UncertaintyJudge(Judge):
    """Token entropy of the world model's prediction of frame t (Savov et al. 2025, eqs. 2–4)."""

    def __init__(self, model: GenieReduxG, config: RewardConfig, version: str) -> None:
        self.tokens = WindowTokens(model.tokenizer, config.precision)
        self._predictor, self._grid = frozen(model, config), model.dynamics.grid
        self._config, self._version = config, version

    @property
    def version(self) -> str:
        return self._version

    def judge(self, windows: Windows) -> Judgement:
        entropy_MN = entropies(self._predictor, self.tokens.primes(windows), windows)
        top_M = top_k_mean(entropy_MN, self._config.top_k_fraction)
        return Judgement(
            rewards_M=values(self._config.scale * top_M),
            statistics={
                "entropy_mean": values(entropy_MN.mean(dim=-1)),
                "entropy_top": values(top_M),
                "entropy_max": values(entropy_MN.amax(dim=-1)),
            },
            maps_Mhw=token_maps(entropy_MN, self._grid),
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
        self._predictors = [frozen(each, config) for each in (model, lagged)]
        self.tokens = WindowTokens(model.tokenizer, config.precision)
        states = [each.tokenizer.token_state() for each in (model, lagged)]
        same = all(value.equal(states[1][name]) for name, value in states[0].items())
        self._tokens = [self.tokens, self.tokens if same else WindowTokens(lagged.tokenizer, config.precision)]

    @property
    def version(self) -> str:
        return f"{self._version}-{self._lagged_version}"

    def judge(self, windows: Windows) -> Judgement:
        now_MN, lagged_MN = (
            entropies(predictor, tokens.primes(windows), windows)
            for predictor, tokens in zip(self._predictors, self._tokens, strict=True)
        )
        now_M, lagged_M = (top_k_mean(entropy, self._config.top_k_fraction) for entropy in (now_MN, lagged_MN))
        return Judgement(
            rewards_M=values(self._config.scale * (lagged_M - now_M)),
            statistics={"entropy_top": values(now_M), "entropy_lagged": values(lagged_M)},
            maps_Mhw=token_maps(lagged_MN - now_MN, self._model.dynamics.grid),
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

    def __init__(self, judge: Judge, tokens: WindowTokens, novelty: Novelty) -> None:
        self._judge, self._tokens, self._novelty = judge, tokens, novelty

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
        tokens_MN = self._tokens.arrived(windows).flatten(1).cpu().numpy()
        factors_M = self._novelty.factors(tokens_MN, windows.episodes, remember=windows.remember)
        return Judgement(
            rewards_M=judged.rewards_M * factors_M,
            statistics={**judged.statistics, "novelty": factors_M},
            maps_Mhw=judged.maps_Mhw,
        )

    def learn(self) -> None:
        self._judge.learn()

    def forget(self) -> None:
        self._judge.forget()

    def get_state(self) -> dict[str, Any]:
        return {**self._judge.get_state(), "novelty": self._novelty.get_state()}


class WindowTokens:
    """Tokens of the frames that judges look at.

    Frame t is encoded as a clip's first one. So is frame t−4, which begins its window's clip: a frame that is both, of
    two windows, is encoded once.
    """

    def __init__(self, tokenizer: Tokenizer, precision: Precision) -> None:
        self.tokenizer, self._precision = tokenizer, precision
        self._device = tokenizer.token_vectors().device
        self._known: tuple[Windows, Tensor] | None = None  # the latest windows, with tokens of their first frames

    def primes(self, windows: Windows) -> Tensor:
        """Of frames t−4 and t−3, a clip: int64 [M, 2, h, w]."""
        tokens_M2hw = self._encode(windows, windows.starts_M[:, None] + np.arange(PRIME_FRAMES))
        self._known = windows, tokens_M2hw[:, 0]
        return tokens_M2hw

    def arrived(self, windows: Windows) -> Tensor:
        """Of frame t by itself: int64 [M, h, w]."""
        numbers_M = windows.starts_M + WINDOW_ACTIONS
        if self._known is None or self._known[0] is not windows:
            return self._encode(windows, numbers_M[:, None])[:, 0]
        firsts_M, tokens_Xhw = windows.starts_M, self._known[1]
        others_X = np.setdiff1d(numbers_M, firsts_M)
        if len(others_X):
            tokens_Xhw = torch.cat([tokens_Xhw, self._encode(windows, others_X[:, None])[:, 0]])
        place = {number: index for index, number in enumerate([*firsts_M.tolist(), *others_X.tolist()])}
        return tokens_Xhw[[place[number] for number in numbers_M.tolist()]]

    def _encode(self, windows: Windows, numbers_XT: np.ndarray) -> Tensor:
        clips_XTHWC = torch.from_numpy(windows.frames_FHWC[numbers_XT])
        with autocast(self._precision, self._device):
            return self.tokenizer.encode(clips_XTHWC.to(self._device))


def frozen(model: GenieReduxG, config: RewardConfig) -> FrozenDynamics:
    """The model's dynamics, for judging."""
    vectors_KD = model.tokenizer.token_vectors()
    with autocast(config.precision, vectors_KD.device):
        return FrozenDynamics(model.dynamics, vectors_KD, copied=True)


def last_features(predictor: FrozenDynamics, primes_M2hw: Tensor, windows: Windows) -> Tensor:
    """What the dynamics make of the first two frames and all actions: features of frame t, [M, N, E]."""
    actions_M4 = torch.from_numpy(windows.actions_M4.astype(np.int64)).to(primes_M2hw.device)
    return predictor.last_features(primes_M2hw, actions_M4)


def entropies(predictor: FrozenDynamics, primes_M2hw: Tensor, windows: Windows) -> Tensor:
    """Normalised entropy of each token of frame t, [M, N] in [0, 1]."""
    return token_entropy(predictor.logits(last_features(predictor, primes_M2hw, windows)))


def token_maps(values_MN: Tensor, grid: tuple[int, int]) -> np.ndarray:
    """Token values on the token grid, [M, h, w]."""
    return values(values_MN).reshape(-1, *grid)


def values(tensor: Tensor) -> np.ndarray:
    """As float32 on the CPU."""
    return tensor.float().cpu().numpy()
