"""LAM: the latent action model of GenieRedux. It learns, without labels, what changes from one frame to the next.

The encoder reads frames 0..T−1; its output at frame t+1 is quantised to one of a few codes, the action from frame t to
t+1. The decoder gets frames 0..T−2 and the codes, and reconstructs frames 1..T−1.

Sources: Genie (Bruce et al., 2024, arXiv 2402.15391, Sec. 2.1), GenieRedux (Kazemi et al., 2024, arXiv 2409.06445,
Sec. 3.2) and its released implementation.

Axes: B batch, T frames, H W pixels in `frames_BTHWC` and token grid elsewhere, C colour channels, D width.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from world_model.layers.autoencoder import Autoencoder, AutoencoderConfig
from world_model.layers.quantizer import QuantizerConfig, build_quantizer


@dataclass(frozen=True, kw_only=True)
class LatentActionConfig(AutoencoderConfig):
    # 7: CoinRun's actions. Moving averages are ours: learned by gradient, as published, it soon collapses to one code.
    quantizer: QuantizerConfig = field(default_factory=lambda: QuantizerConfig(kind="ema", codes=7))
    # Whether only its own loss trains it, and the dynamics' gradient stops before it. Published: false, except in the
    # comparison with Jafar (Savov et al., CVPR 2025, supplement F.5).
    apart: bool = False


class LatentActionOutput(NamedTuple):
    """Result of a training pass."""

    loss: Tensor  # scalar: reconstruction + quantisation, both with weight 1
    metrics: dict[str, Tensor]  # scalars without gradient
    reconstruction_BTHWC: Tensor  # float pixels of frames 1..T−1, not clipped
    actions_BT: Tensor  # code of each transition, T−1 of them
    vectors_BTD: Tensor  # the codes projected to the width D; gradients pass as in its quantizer


class LatentActionModel(Autoencoder):
    """Frames → one latent action per transition. The module's docstring describes the architecture."""

    config: LatentActionConfig

    def __init__(self, config: LatentActionConfig) -> None:
        super().__init__(config)
        height, width = config.grid
        self.to_action = nn.Sequential(nn.Linear(height * width * config.dim, config.dim), nn.LayerNorm(config.dim))
        self.quantizer = build_quantizer(config.quantizer, config.dim)

    def forward(self, frames_BTHWC: Tensor) -> LatentActionOutput:
        """Training pass over uint8 frames, at least two of them."""
        patches_BTHWP = self._patches(frames_BTHWC)
        spatial_bias_hNN = self.spatial_bias()
        embedded_BTHWD = self.patch_embedding(patches_BTHWP)
        quantized = self.quantizer(self._changes(embedded_BTHWD, spatial_bias_hNN))
        decoder_input_BTHWD = embedded_BTHWD[:, :-1] + quantized.vectors[:, :, None, None]
        reconstruction_BTHWP = self.pixel_head(self.decoder(decoder_input_BTHWD, spatial_bias_hNN))
        outcome = self._outcome(patches_BTHWP[:, 1:], reconstruction_BTHWP, quantized)
        return LatentActionOutput(*outcome, quantized.tokens, quantized.vectors)

    @torch.no_grad()
    def encode(self, frames_BTHWC: Tensor) -> Tensor:
        """uint8 frames [B, T, H, W, C] → latent action of each transition, [B, T−1] int64."""
        return self.quantizer(self.encode_to_vectors(frames_BTHWC)).tokens

    @torch.no_grad()
    def encode_to_vectors(self, frames_BTHWC: Tensor) -> Tensor:
        """As `encode`, but the encoder's vectors before quantisation, [B, T−1, D]."""
        return self._changes(self.patch_embedding(self._patches(frames_BTHWC)), self.spatial_bias())

    def action_vectors(self) -> Tensor:
        """The codes projected to the model's width: row k is latent action k, [K, D]."""
        return self.quantizer.token_vectors()

    def _patches(self, frames_BTHWC: Tensor) -> Tensor:
        patches_BTHWP = super()._patches(frames_BTHWC)
        if frames_BTHWC.shape[1] < 2:
            raise ValueError("a clip of 1 frame has no transition, allowed: 2 or more frames")
        return patches_BTHWP

    def _changes(self, embedded_BTHWD: Tensor, spatial_bias_hNN: Tensor) -> Tensor:
        """A vector per transition, computed from the frame that it leads to: [B, T, H, W, D] → [B, T−1, D]."""
        encoded_BTHWD = self.encoder(embedded_BTHWD, spatial_bias_hNN)
        return self.to_action(rearrange(encoded_BTHWD, "b t h w d -> b t (h w d)"))[:, 1:]
