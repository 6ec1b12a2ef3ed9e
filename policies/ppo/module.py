"""The PPO network: centred frames → strided convolutions → policy and value.

What makes it see its frames from the first update on: the mean frame is subtracted and the rest scaled to unit spread,
weights are orthogonal (Engstrom et al. 2020, 2005.12729), and the features are normalised before both heads. A sprite
that covers a hundredth of a static picture is invisible otherwise.

Axis letters: B batch, H W C frame (C counts the channels of all frames shown), D features, A actions.
"""

import math
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis import InferenceOnlyAPI, ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor, nn

from policies.exploration import mixture_log_probs, sample_actions
from policies.play.held import SHOWN_FRAMES
from policies.ppo.config import PPOSettings
from policies.torso import scale_frames, strided_convolutions

MIN_SPREAD = 0.02  # of pixels in [0, 1], so that a static picture's rounding errors stay small


class PPOModule(TorchRLModule, ValueFunctionAPI, InferenceOnlyAPI):
    """Feed-forward actor-critic. `model_config["settings"]` is a PPOSettings.

    The first batch it learns from fixes the mean frame and the spread; before that, frames are left as they are.
    """

    def setup(self) -> None:
        self.settings: PPOSettings = self.model_config["settings"]
        self.hold, self.shown_frames = self.settings.hold, SHOWN_FRAMES
        self.epsilon: float | None = None  # None: by the settings' schedule
        self.temperature = 1.0
        height, width, depth = self.observation_space.shape
        self.register_buffer("mean_CHW", torch.zeros(depth, height, width))
        self.register_buffer("spread", torch.ones(()))
        self.register_buffer("has_seen", torch.zeros((), dtype=torch.bool))
        convolutions, count = strided_convolutions(
            self.observation_space.shape, self.settings.filters, prepare=_orthogonal
        )
        hidden = self.settings.hidden
        features = [_orthogonal(nn.Linear(count, hidden)), nn.LayerNorm(hidden), nn.ReLU()]
        self.torso = nn.Sequential(*convolutions, *features)
        self.policy = _orthogonal(nn.Linear(hidden, int(self.action_space.n)), gain=0.01)  # close to uniform at first
        self.value = _orthogonal(nn.Linear(hidden, 1), gain=1.0)

    def set_exploration(self, *, epsilon: float, temperature: float) -> None:
        """Fixes ε and the temperature to act with, overriding the schedule."""
        self.epsilon, self.temperature = epsilon, temperature

    def get_non_inference_attributes(self) -> list[str]:
        return ["value"]

    @torch.no_grad()
    def see(self, frames_BHWC: Tensor) -> None:
        """Takes the mean frame and the spread of all pixels around it from these frames."""
        pixels_BCHW = scale_frames(frames_BHWC)
        self.mean_CHW.copy_(pixels_BCHW.mean(0))
        self.spread.copy_((pixels_BCHW - self.mean_CHW).std().clamp(min=MIN_SPREAD))
        self.has_seen.fill_(True)

    def features(self, batch: dict[str, Any]) -> Tensor:
        """[B, D] from frames [B, H, W, C] uint8."""
        return self.torso((scale_frames(batch[Columns.OBS]) - self.mean_CHW) / self.spread)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Inference without exploration: the policy's logits at temperature 1."""
        return {Columns.ACTION_DIST_INPUTS: self.policy(self.features(batch))}

    @torch.no_grad()
    def _forward_exploration(self, batch: dict[str, Any], t: int = 0, **kwargs: Any) -> dict[str, Any]:
        """Samples actions from the ε-mixture, ε as after `t` steps, and returns their exact log-probabilities."""
        epsilon = self.settings.epsilon_after(t) if self.epsilon is None else self.epsilon
        log_probs_BA = mixture_log_probs(
            self.policy(self.features(batch)), epsilon=epsilon, temperature=self.temperature
        )
        actions_B, log_probs_B = sample_actions(log_probs_BA)
        return {
            Columns.ACTION_DIST_INPUTS: log_probs_BA,
            Columns.ACTIONS: actions_B,
            Columns.ACTION_LOGP: log_probs_B,
        }

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        if not self.has_seen:
            self.see(batch[Columns.OBS])
        features_BD = self.features(batch)
        return {Columns.ACTION_DIST_INPUTS: self.policy(features_BD), Columns.EMBEDDINGS: features_BD}

    def compute_values(self, batch: dict[str, Any], embeddings: Tensor | None = None) -> Tensor:
        """V [B]."""
        return self.value(self.features(batch) if embeddings is None else embeddings).squeeze(-1)


def _orthogonal(layer: Any, gain: float = math.sqrt(2)) -> Any:
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
