"""LAM: the latent action model of GenieRedux. It finds, without labels, what changes from one frame to the next.

The encoder reads frames 0..T−1; its output at frame t+1 is quantised to one of a few codes, the action from frame t to
t+1. The decoder gets frames 0..T−2 and the codes, and has to reconstruct frames 1..T−1.

Sources: Genie (Bruce et al., 2024, arXiv 2402.15391, Sec. 2.1), GenieRedux (Kazemi et al., 2024, arXiv 2409.06445,
Sec. 3.2) and its released implementation.

Axes: B batch, T frames, H W pixels in `frames_BTHWC` and token grid elsewhere, C colour channels, D width.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from world_model.checks import CHANNELS, check_frames, check_positive
from world_model.patches import PatchEmbedding, PixelHead, from_patches, to_patches
from world_model.quantizer import Quantized, QuantizerConfig, build_quantizer
from world_model.transformer import ContinuousPositionBias, Order, SpatioTemporalTransformer


@dataclass(frozen=True, kw_only=True)
class LatentActionConfig:
    frame_size: int = 64  # pixels; GenieRedux, Sec. 4
    patch_size: int = 4  # pixels; GenieRedux, Sec. 4
    max_frames: int = 16  # longest clip; GenieRedux, Sec. 4
    dim: int = 512  # GenieRedux, Sec. 4
    blocks: int = 8  # of the encoder and of the decoder each; GenieRedux, Sec. 4
    heads: int = 8  # GenieRedux, Sec. 4
    head_dim: int = 64  # GenieRedux, Sec. 4
    quantizer: QuantizerConfig = field(default_factory=lambda: QuantizerConfig(codes=7))  # CoinRun's 7 actions

    def __post_init__(self) -> None:
        check_positive(self, "frame_size", "patch_size", "max_frames", "dim", "blocks", "heads", "head_dim")
        if self.frame_size % self.patch_size:
            raise ValueError(
                f"LatentActionConfig: frame_size is {self.frame_size}, "
                f"allowed: multiples of patch_size {self.patch_size}"
            )


class LatentActionOutput(NamedTuple):
    """Result of a training pass."""

    loss: Tensor  # scalar: reconstruction + quantisation, both with weight 1
    metrics: dict[str, Tensor]  # scalars without gradient
    reconstruction_BTHWC: Tensor  # float pixels of frames 1..T−1, not clipped
    actions_BT: Tensor  # code of each transition, T−1 of them
    vectors_BTD: Tensor  # the codes projected to the width D; gradients pass straight through


class LatentActionModel(nn.Module):
    """Frames → one latent action per transition. The module's docstring tells the architecture."""

    def __init__(self, config: LatentActionConfig) -> None:
        super().__init__()
        self.config = config

        def transformer(order: Order) -> SpatioTemporalTransformer:
            return SpatioTemporalTransformer(
                dim=config.dim,
                blocks=config.blocks,
                heads=config.heads,
                head_dim=config.head_dim,
                max_frames=config.max_frames,
                order=order,
            )

        side = config.frame_size // config.patch_size
        patch_values = CHANNELS * config.patch_size**2
        self.patch_embedding = PatchEmbedding(patch_values, config.dim)
        self.spatial_bias = ContinuousPositionBias((side, side), config.heads, hidden=config.dim)
        self.encoder = transformer("st")
        self.to_action = nn.Sequential(nn.Linear(side * side * config.dim, config.dim), nn.LayerNorm(config.dim))
        self.quantizer = build_quantizer(config.quantizer, config.dim)
        self.decoder = transformer("ts")
        self.pixel_head = PixelHead(config.dim, patch_values)

    def forward(self, frames_BTHWC: Tensor) -> LatentActionOutput:
        """Training pass over uint8 frames, at least two of them."""
        patches_BTHWP = self._patches(frames_BTHWC)
        spatial_bias_hNN = self.spatial_bias()
        embedded_BTHWD = self.patch_embedding(patches_BTHWP)
        quantized = self._quantize(embedded_BTHWD, spatial_bias_hNN)
        decoder_input_BTHWD = embedded_BTHWD[:, :-1] + quantized.vectors[:, :, None, None]
        reconstruction_BTHWP = self.pixel_head(self.decoder(decoder_input_BTHWD, spatial_bias_hNN))
        reconstruction_loss = F.mse_loss(reconstruction_BTHWP, patches_BTHWP[:, 1:])
        loss = reconstruction_loss + quantized.loss
        metrics = {
            "loss": loss.detach(),
            "reconstruction_mse": reconstruction_loss.detach(),
            "quantization_loss": quantized.loss.detach(),
            "codes_used": torch.tensor(float(quantized.tokens.unique().numel())),
        }
        reconstruction_BTHWC = from_patches(reconstruction_BTHWP, self.config.patch_size)
        return LatentActionOutput(loss, metrics, reconstruction_BTHWC, quantized.tokens, quantized.vectors)

    @torch.no_grad()
    def encode(self, frames_BTHWC: Tensor) -> Tensor:
        """uint8 frames [B, T, H, W, C] → latent action of each transition, [B, T−1] int64."""
        embedded_BTHWD = self.patch_embedding(self._patches(frames_BTHWC))
        return self._quantize(embedded_BTHWD, self.spatial_bias()).tokens

    def action_vectors(self) -> Tensor:
        """The codes projected to the model's width: row k is latent action k, [K, D]."""
        return self.quantizer.token_vectors()

    def _patches(self, frames_BTHWC: Tensor) -> Tensor:
        check_frames(frames_BTHWC, self.config.frame_size, self.config.max_frames)
        if frames_BTHWC.shape[1] < 2:
            raise ValueError("a clip of 1 frame has no transition, allowed: 2 or more frames")
        return to_patches(frames_BTHWC, self.config.patch_size)

    def _quantize(self, embedded_BTHWD: Tensor, spatial_bias_hNN: Tensor) -> Quantized:
        encoded_BTHWD = self.encoder(embedded_BTHWD, spatial_bias_hNN)
        return self.quantizer(self.to_action(rearrange(encoded_BTHWD, "b t h w d -> b t (h w d)"))[:, 1:])
