"""GenieRedux-G and GenieRedux: a frozen tokenizer and a dynamics model (and a LAM) combined.

GenieReduxG  is guided by the player's actions (Savov et al., CVPR 2025, arXiv 2504.02515).
GenieRedux   by the codes of a latent action model trained with it (Kazemi et al., 2024, arXiv 2409.06445).

Axes: B batch, T frames, H W pixels in `frames_BTHWC` and token grid in `tokens_BTHW`, C colour channels, N tokens of
a frame, K codes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from world_model import maskgit
from world_model.cached import CachedPredictor
from world_model.dynamics import Dynamics, DynamicsConfig
from world_model.latent_actions import LatentActionConfig, LatentActionModel
from world_model.layers.checks import check_actions, check_frames, check_length
from world_model.maskgit import DecodingConfig, Generators
from world_model.objective import DynamicsOutput
from world_model.tokenizer import Tokenizer, TokenizerConfig
from world_model.uncertainty import PREDICTED_FRAMES, PRIME_FRAMES, token_entropy


@dataclass(frozen=True, kw_only=True)
class GenieReduxGConfig:
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)

    def __post_init__(self) -> None:
        _check_parts(self.tokenizer, self.dynamics, ("one_hot", "embedding", "scale"))


@dataclass(frozen=True, kw_only=True)
class GenieReduxConfig:
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    dynamics: DynamicsConfig = field(
        default_factory=lambda: DynamicsConfig(conditioning="latent", token_input_scale=0.0)
    )
    latent_actions: LatentActionConfig = field(default_factory=LatentActionConfig)

    def __post_init__(self) -> None:
        _check_parts(self.tokenizer, self.dynamics, ("latent",))
        if self.latent_actions.dim != self.dynamics.dim:
            raise ValueError(
                f"latent_actions.dim is {self.latent_actions.dim}, allowed: dynamics.dim {self.dynamics.dim}"
            )
        if self.latent_actions.max_frames < self.dynamics.max_frames:
            raise ValueError(
                f"latent_actions.max_frames is {self.latent_actions.max_frames}, "
                f"allowed: dynamics.max_frames {self.dynamics.max_frames} or more"
            )
        if self.latent_actions.frame_size != self.tokenizer.frame_size:
            raise ValueError(
                f"latent_actions.frame_size is {self.latent_actions.frame_size}, "
                f"allowed: tokenizer.frame_size {self.tokenizer.frame_size}"
            )


def _check_parts(tokenizer: TokenizerConfig, dynamics: DynamicsConfig, conditionings: tuple[str, ...]) -> None:
    if dynamics.conditioning not in conditionings:
        allowed = ", ".join(map(repr, conditionings))
        raise ValueError(f"dynamics.conditioning is {dynamics.conditioning!r}, allowed here: {allowed}")
    if dynamics.head == "levels" and tokenizer.quantizer.kind != "fsq":
        raise ValueError(
            f"dynamics.head is 'levels', allowed with quantizer.kind {tokenizer.quantizer.kind!r}: 'codes'"
        )
    if dynamics.token_input_scale and dynamics.dim != tokenizer.dim:
        raise ValueError(
            f"dynamics.dim is {dynamics.dim}, allowed with a token input: the tokenizer's dim {tokenizer.dim}"
        )
    if dynamics.max_frames > tokenizer.max_frames:
        raise ValueError(
            f"dynamics.max_frames is {dynamics.max_frames}, allowed: up to the tokenizer's {tokenizer.max_frames}"
        )


class _WorldModel(nn.Module, ABC):
    """Shared by both: the frozen tokenizer, the dynamics, and decoding."""

    @property
    @abstractmethod
    def num_actions(self) -> int:
        """Number of actions that a player can choose from."""

    @abstractmethod
    def action_inputs(self, actions_BT: Tensor) -> Tensor:
        """Actions in the form that the dynamics take."""

    def __init__(self, tokenizer: TokenizerConfig, dynamics: DynamicsConfig) -> None:
        super().__init__()
        self.tokenizer = Tokenizer(tokenizer).requires_grad_(False)
        quantizer = tokenizer.quantizer
        self.dynamics = Dynamics(dynamics, grid=tokenizer.grid, codes=quantizer.size, levels=quantizer.levels)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As in any module, but the tokenizer stays in evaluation mode."""
        super().train(mode)
        self.tokenizer.eval()
        return self

    def _check(self, frames_BTHWC: Tensor, actions_BT: Tensor, *, between: bool = False) -> None:
        """Raises ValueError unless these are frames and actions of clips; `between`: only actions between frames."""
        check_frames(frames_BTHWC, self.tokenizer.config.frame_size, self.dynamics.config.max_frames)
        count = frames_BTHWC.shape[1] - 1 if between else actions_BT.shape[-1]
        check_actions(actions_BT, (frames_BTHWC.shape[0], count), self.num_actions)

    def _loss(self, frames_BTHWC: Tensor, actions: Tensor, generator: torch.Generator | None) -> DynamicsOutput:
        check_frames(frames_BTHWC, self.tokenizer.config.frame_size, self.dynamics.config.max_frames)
        tokens_BTHW = self.tokenizer.encode(frames_BTHWC)
        return self.dynamics.loss(
            tokens_BTHW,
            actions,
            self.dynamics.draw_mask(tokens_BTHW, generator),
            token_vectors_KD=self.tokenizer.token_vectors(),
            distance_vectors_KC=self.tokenizer.distance_vectors(),
            generator=generator,
        )

    @torch.no_grad()
    def _rollout(
        self, prime_frames_BTHWC: Tensor, actions: Tensor, decoding: DecodingConfig, generator: Generators
    ) -> Tensor:
        """Predicts frames; there is one action fewer than prime and predicted frames together."""
        primes = prime_frames_BTHWC.shape[1]
        frames = actions.shape[1] + 1 - primes
        check_length(primes + frames, self.dynamics.config.max_frames)
        if frames < 1:
            raise ValueError(
                f"{primes} prime frames and {actions.shape[1]} actions leave no frame to predict, "
                f"allowed: {primes} actions or more"
            )
        prime_tokens_BTHW = self.tokenizer.encode(prime_frames_BTHWC)
        predicted_BTHW = maskgit.decode(
            CachedPredictor(self.dynamics, self.tokenizer.token_vectors(), actions, guidance=decoding.guidance),
            prime_tokens_BTHW,
            frames,
            mask_token=self.dynamics.mask_token,
            decoding=decoding,
            generator=generator,
        )
        return self.tokenizer.decode(torch.cat([prime_tokens_BTHW, predicted_BTHW], dim=1))[:, primes:]


class GenieReduxG(_WorldModel):
    """World model guided by the player's actions."""

    def __init__(self, config: GenieReduxGConfig) -> None:
        super().__init__(config.tokenizer, config.dynamics)
        self.config = config

    @property
    def num_actions(self) -> int:
        return self.config.dynamics.num_actions

    def action_inputs(self, actions_BT: Tensor) -> Tensor:
        return actions_BT

    def forward(
        self, frames_BTHWC: Tensor, actions_BT: Tensor, generator: torch.Generator | None = None
    ) -> DynamicsOutput:
        """Training loss of uint8 frames [B, T, H, W, C] and the T−1 actions between them (masks are drawn here)."""
        self._check(frames_BTHWC, actions_BT, between=True)
        return self._loss(frames_BTHWC, actions_BT, generator)

    def rollout(
        self,
        prime_frames_BTHWC: Tensor,
        actions_BT: Tensor,
        *,
        decoding: DecodingConfig,
        generator: Generators = None,
    ) -> Tensor:
        """Predicts the uint8 frames that follow the prime frames, [B, T_pred, H, W, C].

        `actions_BT` [B, T_prime + T_pred − 1]: action t leads from frame t to t+1, counted from the first prime frame.
        """
        self._check(prime_frames_BTHWC, actions_BT)
        return self._rollout(prime_frames_BTHWC, actions_BT, decoding, generator)

    @torch.no_grad()
    def one_step_logits(self, prime_frames_BTHWC: Tensor, actions_BT: Tensor, *, last_only: bool = False) -> Tensor:
        """Logits of all predicted frames with all their tokens masked, [B, T_pred, N, K] (one decoding step).

        `last_only`: only those of the last predicted frame, [B, 1, N, K].
        """
        return self.dynamics.to_logits(self.one_step_features(prime_frames_BTHWC, actions_BT, last_only=last_only))

    @torch.no_grad()
    def one_step_features(self, prime_frames_BTHWC: Tensor, actions_BT: Tensor, *, last_only: bool = False) -> Tensor:
        """Input of the last layer that yields `one_step_logits`, [B, T_pred, N, E]; same arguments."""
        self._check(prime_frames_BTHWC, actions_BT)
        prime_tokens_BTHW = self.tokenizer.encode(prime_frames_BTHWC)
        primes, frames = prime_tokens_BTHW.shape[1], actions_BT.shape[1] + 1
        shape = (len(prime_tokens_BTHW), frames - primes, *self.dynamics.grid)
        masked_BTHW = prime_tokens_BTHW.new_full(shape, self.dynamics.mask_token)
        tokens_BTHW = torch.cat([prime_tokens_BTHW, masked_BTHW], dim=1)
        first = frames - 1 if last_only else primes
        features_BTHWE = self.dynamics.features(tokens_BTHW, actions_BT, self.tokenizer.token_vectors(), first=first)
        return rearrange(features_BTHWE, "b t h w e -> b t (h w) e")

    def uncertainty(self, frames_BTHWC: Tensor, actions_BT: Tensor) -> Tensor:
        """Uncertainty of each token of frame t, [B, N] in [0, 1], given frames t−4, t−3 and actions t−4..t−1.

        Args:
            frames_BTHWC: uint8 [B, 2, H, W, C].
            actions_BT: int64 [B, 4].
        """
        if frames_BTHWC.shape[1] != PRIME_FRAMES or actions_BT.shape[1] != PRIME_FRAMES + PREDICTED_FRAMES - 1:
            raise ValueError(
                f"{frames_BTHWC.shape[1]} frames and {actions_BT.shape[1]} actions, "
                f"allowed: {PRIME_FRAMES} and {PRIME_FRAMES + PREDICTED_FRAMES - 1}"
            )
        return token_entropy(self.one_step_logits(frames_BTHWC, actions_BT, last_only=True)[:, -1])


class GenieRedux(_WorldModel):
    """World model guided by latent actions, which it learns together with the dynamics."""

    def __init__(self, config: GenieReduxConfig) -> None:
        super().__init__(config.tokenizer, config.dynamics)
        self.config = config
        self.latent_actions = LatentActionModel(config.latent_actions)

    @property
    def num_actions(self) -> int:
        return self.config.latent_actions.quantizer.size

    def action_inputs(self, latent_actions_BT: Tensor) -> Tensor:
        """The latent actions' vectors, [B, T, D]."""
        return F.embedding(latent_actions_BT, self.latent_actions.action_vectors())

    def forward(self, frames_BTHWC: Tensor, generator: torch.Generator | None = None) -> DynamicsOutput:
        """Joint training loss on uint8 frames [B, T, H, W, C] (masks are drawn here).

        The sum of the dynamics' loss and the LAM's own (reconstruction and codebook; Genie, Sec. 2.1).
        """
        latent = self.latent_actions(frames_BTHWC)
        vectors_BTD = latent.vectors_BTD.detach() if self.config.latent_actions.apart else latent.vectors_BTD
        dynamics = self._loss(frames_BTHWC, vectors_BTD, generator)
        loss = dynamics.loss + latent.loss
        metrics = {
            "loss": loss.detach(),
            **{f"dynamics_{name}": value for name, value in dynamics.metrics.items()},
            **{f"latent_actions_{name}": value for name, value in latent.metrics.items()},
        }
        return DynamicsOutput(loss, metrics)

    def rollout(
        self,
        prime_frames_BTHWC: Tensor,
        latent_actions_BT: Tensor,
        *,
        decoding: DecodingConfig,
        generator: Generators = None,
    ) -> Tensor:
        """Predicts the uint8 frames that follow the prime frames when the user picks these latent actions.

        `latent_actions_BT` int64 [B, T_prime + T_pred − 1]; `latent_actions.encode` gives those between prime frames.
        """
        self._check(prime_frames_BTHWC, latent_actions_BT)
        return self._rollout(prime_frames_BTHWC, self.action_inputs(latent_actions_BT), decoding, generator)
