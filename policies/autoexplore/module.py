"""AutoExplore's network: convolutions → LSTM → policy and value (Savov et al. 2025, section A.3).

Axis letters: B sequences (or environments), T steps, H W C frame, D features, A actions.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from policies.autoexplore.config import AutoExploreModuleConfig
from policies.exploration import mixture_log_probs, sample_actions
from policies.torso import pooled_convolutions, scale_frames


class AutoExploreModule(TorchRLModule, ValueFunctionAPI, InferenceOnlyAPI):
    """The recurrent actor-critic as an RLlib module. `model_config["network"]` is an AutoExploreModuleConfig."""

    def setup(self) -> None:
        self.settings: AutoExploreModuleConfig = self.model_config["network"]
        self.torso, embedded = pooled_convolutions(self.observation_space.shape, self.settings.channels)
        self.lstm = nn.LSTM(embedded, self.settings.lstm_size, batch_first=True)
        self.policy = nn.Linear(self.settings.lstm_size, int(self.action_space.n))
        self.value = nn.Linear(self.settings.lstm_size, 1)
        # The initial policy is close to uniform: it prefers no action before it has learned.
        nn.init.orthogonal_(self.policy.weight, gain=0.01)
        nn.init.zeros_(self.policy.bias)

    def set_exploration(self, *, epsilon: float, temperature: float) -> None:
        """Fixes ε and the temperature, overriding the schedule."""
        self.settings = replace(self.settings, temperature=temperature, epsilon_start=epsilon, epsilon_end=epsilon)

    def get_initial_state(self) -> dict[str, np.ndarray]:
        """LSTM state at an episode's start: zeros [lstm_size]."""
        return {name: np.zeros(self.settings.lstm_size, np.float32) for name in ("h", "c")}

    def get_non_inference_attributes(self) -> list[str]:
        return ["value"]

    def _features(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """LSTM outputs [B, T, D] and the state after them, from frames [B, T, H, W, C] and the state before."""
        pixels_BTCHW = scale_frames(batch[Columns.OBS])
        embedded_BTD = self.torso(pixels_BTCHW.flatten(0, 1)).unflatten(0, pixels_BTCHW.shape[:2])
        state = (batch[Columns.STATE_IN]["h"][None].contiguous(), batch[Columns.STATE_IN]["c"][None].contiguous())
        features_BTD, (h, c) = self.lstm(embedded_BTD, state)
        return features_BTD, {"h": h[0], "c": c[0]}

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Inference without exploration: the policy's logits at temperature 1."""
        features_BTD, state = self._features(batch)
        return {Columns.ACTION_DIST_INPUTS: self.policy(features_BTD), Columns.STATE_OUT: state}

    @torch.no_grad()
    def _forward_exploration(self, batch: dict[str, Any], t: int = 0, **kwargs: Any) -> dict[str, Any]:
        """Samples actions from the ε-mixture and returns their exact log-probabilities."""
        features_BTD, state = self._features(batch)
        log_probs_BTA = mixture_log_probs(
            self.policy(features_BTD), epsilon=self.settings.epsilon(t), temperature=self.settings.temperature
        )
        actions_BT, log_probs_BT = sample_actions(log_probs_BTA)
        return {Columns.ACTIONS: actions_BT, Columns.ACTION_LOGP: log_probs_BT, Columns.STATE_OUT: state}

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        features_BTD, _ = self._features(batch)
        return {Columns.ACTION_DIST_INPUTS: self.policy(features_BTD), Columns.EMBEDDINGS: features_BTD}

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """V(x_t) [B, T]."""
        features_BTD = self._features(batch)[0] if embeddings is None else embeddings
        return self.value(features_BTD).squeeze(-1)
