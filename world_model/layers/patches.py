"""Frames ↔ patches ↔ embeddings: the pixel side of the tokenizer and of the latent action model.

Source: GenieRedux (Kazemi et al., 2024, arXiv 2409.06445, Sec. 3.1) and its released implementation.

Axes: B batch, T frames, H W pixels in `frames_BTHWC` and token grid elsewhere, C colour channels, P values of a
patch, D width.
"""

import torch
from einops import rearrange
from torch import Tensor, nn

from world_model.layers.head import HeadLinear


def to_patches(frames_BTHWC: Tensor, patch_size: int) -> Tensor:
    """uint8 frames → [B, T, H/p, W/p, C·p·p] in [0, 1]."""
    pattern = "b t (h p) (w q) c -> b t h w (c p q)"
    return rearrange(frames_BTHWC, pattern, p=patch_size, q=patch_size).float() / 255


def from_patches(patches_BTHWP: Tensor, patch_size: int) -> Tensor:
    """Patches back to pixels, values unchanged: [B, T, H, W, P] → [B, T, H·p, W·p, C]."""
    pattern = "b t h w (c p q) -> b t (h p) (w q) c"
    return rearrange(patches_BTHWP, pattern, p=patch_size, q=patch_size)


def to_uint8(pixels: Tensor) -> Tensor:
    """Floats, clipped to [0, 1] → uint8 in [0, 255], rounded."""
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)


class PatchEmbedding(nn.Module):
    """Patches → LayerNorm → Linear → LayerNorm; the first frame has its own: [B, T, H, W, P] → [B, T, H, W, D]."""

    def __init__(self, patch_values: int, dim: int) -> None:
        super().__init__()

        def embedding() -> nn.Sequential:
            return nn.Sequential(nn.LayerNorm(patch_values), nn.Linear(patch_values, dim), nn.LayerNorm(dim))

        self.first_frame, self.next_frames = embedding(), embedding()

    def forward(self, patches_BTHWP: Tensor) -> Tensor:
        first, rest = patches_BTHWP[:, :1], patches_BTHWP[:, 1:]
        return torch.cat([self.first_frame(first), self.next_frames(rest)], dim=1)


class PixelHead(nn.Module):
    """Linear to the values of a patch; the first frame has its own: [B, T, H, W, D] → [B, T, H, W, P]."""

    def __init__(self, dim: int, patch_values: int) -> None:
        super().__init__()
        self.first_frame, self.next_frames = HeadLinear(dim, patch_values), HeadLinear(dim, patch_values)

    def forward(self, x_BTHWD: Tensor, *, start: int = 0) -> Tensor:
        """`start`: position of the first of these frames in its clip."""
        if start:
            return self.next_frames(x_BTHWD)
        return torch.cat([self.first_frame(x_BTHWD[:, :1]), self.next_frames(x_BTHWD[:, 1:])], dim=1)
