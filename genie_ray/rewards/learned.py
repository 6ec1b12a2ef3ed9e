"""Judges that learn from the windows they judge: a request is judged first, as a whole, then learned from.

If they learned between its batches, what is judged first would be paid more: in an explorer's request these are the
episodes that have ended. Learning takes the windows in random order, as many at a time as are judged at a time.

Their versions end in "+incarnation.updates". Each rebuild from saved state starts a new incarnation: what was learned
since the last save is lost, so the same number of updates would stand for other weights.

Axis letters: M windows, N tokens of a frame, E features of the dynamics, C dimensions of a code, H W C frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.judges import Judge, Judgement, WindowTokens, frozen, last_features, token_maps, values
from genie_ray.rewards.windows import Windows
from policies.baselines.curiosity import FeatureCuriosity
from policies.baselines.disagreement import DisagreementEnsemble
from world_model.genie import GenieReduxG
from world_model.uncertainty import token_entropy, top_k_mean


class Examples:
    """What waits to be learned from: tensors whose first dimension counts windows."""

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, ...]] = []

    def add(self, *columns: Tensor) -> None:
        """Adds examples."""
        self._parts.append(columns)

    def minibatches(self, size: int, *, seed: int) -> Iterator[list[Tensor]]:
        """Removes all examples and yields them in random order, at most `size` at a time."""
        waiting, self._parts = self._parts, []
        columns = [torch.cat(parts) for parts in zip(*waiting, strict=True)]
        if columns:
            order_M = torch.randperm(len(columns[0]), generator=torch.Generator().manual_seed(seed))
            for chosen_B in order_M.to(columns[0].device).split(size):
                yield [column[chosen_B] for column in columns]

    def clear(self) -> None:
        """Removes all examples."""
        self._parts.clear()


class DisagreementJudge(Judge):
    """Variance over heads that predict each token's code vector of frame t from the frozen dynamics' features.

    A token's target is its code vector: normalised to length 1, except on the grid of "fsq", whose vectors are used as
    they are. As with the entropy, only the highest share of a frame's tokens counts.
    """

    def __init__(
        self, model: GenieReduxG, config: RewardConfig, version: str, state: dict[str, Any] | None = None
    ) -> None:
        self._config, self._weights, self._grid = config, version, model.dynamics.grid
        self.tokens, self._predictor = WindowTokens(model.tokenizer, config.precision), frozen(model, config)
        codes_KC = model.tokenizer.code_vectors().detach().float()
        grid = model.tokenizer.config.quantizer.kind == "fsq"
        self._targets_KC = codes_KC if grid else F.normalize(codes_KC, dim=-1)
        self._ensemble = DisagreementEnsemble(
            config.disagreement,
            features=model.dynamics.to_logits.in_features,
            targets=self._targets_KC.shape[-1],
        ).to(codes_KC.device)
        self._incarnation = 0
        if state is not None:
            self._ensemble.set_state(state)
            self._incarnation = state["incarnation"] + 1
        self._waiting = Examples()

    @property
    def version(self) -> str:
        return f"{self._weights}+{self._incarnation}.{self._ensemble.updates}"

    @torch.no_grad()
    def judge(self, windows: Windows) -> Judgement:
        features_MNE = last_features(self._predictor, self.tokens.primes(windows), windows)
        entropy_MN = token_entropy(self._predictor.logits(features_MNE))
        if windows.remember:
            self._waiting.add(features_MNE, self.tokens.arrived(windows).flatten(1))
        disagreement_MN = self._ensemble.disagreement(features_MNE)
        top_M = top_k_mean(disagreement_MN, self._config.top_k_fraction)
        return Judgement(
            rewards_M=values(self._config.scale * top_M),
            statistics={
                "disagreement_mean": values(disagreement_MN.mean(dim=-1)),
                "entropy_mean": values(entropy_MN.mean(dim=-1)),
            },
            maps_Mhw=token_maps(disagreement_MN, self._grid),
        )

    def learn(self) -> None:
        for features_BNE, tokens_BN in self._waiting.minibatches(self._config.batch_size, seed=self._ensemble.updates):
            self._ensemble.learn(features_BNE, self._targets_KC[tokens_BN])

    def forget(self) -> None:
        self._waiting.clear()

    def get_state(self) -> dict[str, Any]:
        return {"disagreement": {**self._ensemble.get_state(), "incarnation": self._incarnation}}


class CuriosityJudge(Judge):
    """Prediction error in random features ("rf") or in an online VAE's ("vae"); uses no world model."""

    def __init__(
        self,
        config: RewardConfig,
        *,
        frame_size: int,
        num_actions: int,
        device: torch.device,
        state: dict[str, Any] | None = None,
    ) -> None:
        assert config.kind in ("rf", "vae")
        self._config, self._device = config, device
        self._curiosity = FeatureCuriosity(
            config.kind, config.curiosity, frame_size=frame_size, num_actions=num_actions
        ).to(device)
        self._incarnation = 0
        if state is not None:
            self._curiosity.set_state(state)
            self._incarnation = state["incarnation"] + 1
        self._waiting = Examples()

    @property
    def version(self) -> str:
        return f"{self._config.kind}+{self._incarnation}.{self._curiosity.updates}"

    def judge(self, windows: Windows) -> Judgement:
        frames_M2HWC = torch.from_numpy(np.ascontiguousarray(windows.frames[:, -2:])).to(self._device)
        actions_M = torch.from_numpy(windows.actions_M4[:, -1].astype(np.int64)).to(self._device)
        if windows.remember:
            self._waiting.add(frames_M2HWC, actions_M)
        errors_M = self._curiosity.errors(frames_M2HWC, actions_M)
        return Judgement(
            rewards_M=values(self._config.scale * errors_M),
            statistics={"prediction_error": values(errors_M)},
            maps_Mhw=None,
        )

    def learn(self) -> None:
        for batch in self._waiting.minibatches(self._config.batch_size, seed=self._curiosity.updates):
            self._curiosity.learn(*batch)

    def forget(self) -> None:
        self._waiting.clear()

    def get_state(self) -> dict[str, Any]:
        return {self._config.kind: {**self._curiosity.get_state(), "incarnation": self._incarnation}}
