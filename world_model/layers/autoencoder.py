"""Base of the tokenizer and the latent action model: a causal ST encoder and decoder, from pixels to pixels.

Source: GenieRedux (Kazemi et al., 2024, arXiv 2409.06445, Secs. 3 and 4) and its released implementation.

Axes: B batch, T frames, H W pixels in `frames_BTHWC` and token grid elsewhere, C colour channels, P values of a
patch, D width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world_model.layers.checks import CHANNELS, check_frames, check_positive
from world_model.layers.patches import PatchEmbedding, PixelHead, from_patches, to_patches
from world_model.layers.position_bias import ContinuousPositionBias
from world_model.layers.quantizer import Quantized
from world_model.layers.transformer import Order, SpatioTemporalTransformer


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    frame_size: int = 64  # pixels; all defaults: GenieRedux, Sec. 4
    patch_size: int = 4  # pixels
    max_frames: int = 16  # longest clip
    dim: int = 512
    blocks: int = 8  # in each of encoder and decoder
    heads: int = 8
    head_dim: int = 64

    def __post_init__(self) -> None:
        check_positive(self, "frame_size", "patch_size", "max_frames", "dim", "blocks", "heads", "head_dim")
        if self.frame_size % self.patch_size:
            raise ValueError(
                f"{type(self).__name__}: frame_size is {self.frame_size}, "
                f"allowed: multiples of patch_size {self.patch_size}"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Token grid (H, W) of one frame."""
        side = self.frame_size // self.patch_size
        return side, side

    @property
    def patch_values(self) -> int:
        """P, the number of values in a patch."""
        return CHANNELS * self.patch_size**2


class Autoencoder(nn.Module):
    """The parts before and after a quantizer. Encoder and decoder share one spatial position bias, as published."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = PatchEmbedding(config.patch_values, config.dim)
        self.spatial_bias = ContinuousPositionBias(config.grid, config.heads, hidden=config.dim)
        self.encoder = _transformer(config, "st")
        self.decoder = _transformer(config, "ts")
        self.pixel_head = PixelHead(config.dim, config.patch_values)

    def _patches(self, frames_BTHWC: Tensor) -> Tensor:
        """Checked uint8 frames → patches [B, T, H, W, P] in [0, 1]."""
        check_frames(frames_BTHWC, self.config.frame_size, self.config.max_frames)
        return to_patches(frames_BTHWC, self.config.patch_size)

    def _outcome(
        self, patches_BTHWP: Tensor, reconstruction_BTHWP: Tensor, quantized: Quantized
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Loss, metrics and reconstructed pixels [B, T, H, W, C] of a training pass."""
        reconstruction_loss = F.mse_loss(reconstruction_BTHWP, patches_BTHWP)
        loss = reconstruction_loss + quantized.loss
        metrics = {
            "loss": loss.detach(),
            "reconstruction_mse": reconstruction_loss.detach(),
            "quantization_loss": quantized.loss.detach(),
            "codes_used": torch.tensor(float(quantized.tokens.unique().numel())),
        }
        return loss, metrics, from_patches(reconstruction_BTHWP, self.config.patch_size)


def _transformer(config: AutoencoderConfig, order: Order) -> SpatioTemporalTransformer:
    return SpatioTemporalTransformer(
        dim=config.dim,
        blocks=config.blocks,
        heads=config.heads,
        head_dim=config.head_dim,
        max_frames=config.max_frames,
        order=order,
    )
