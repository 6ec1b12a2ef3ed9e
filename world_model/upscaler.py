"""Super-resolution of frames: a U-Net that enlarges a world model's 64×64 frames to 256×256.

A frame is enlarged by bicubic interpolation; the U-Net repairs the blur. Levels of two 3×3 convolutions, each with
batch normalisation and ReLU; max-pooling on the way down, transposed convolutions on the way up, skip connections.

Sources: U-Net (Ronneberger et al., 2015, arXiv 1505.04597); sizes and recipe, GenieRedux-G (Savov et al., CVPR 2025,
arXiv 2504.02515, supplement). The published U-Net predicts the image itself; predicting the difference from the
interpolated frame, as VDSR does (Kim et al., 2016, arXiv 1511.04587), is ours: `UpscalerConfig(residual=True)`.

Axes: B batch, H W C pixels and colour channels (H W of a frame, or `scale` times that of a large frame).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from world_model.layers.checks import CHANNELS, check_positive
from world_model.layers.patches import to_uint8

FRAMES_AT_ONCE = 8
"""Frames whose features `upscale` holds in memory at once: about 100 MB each for the paper's small network."""


@dataclass(frozen=True, kw_only=True)
class UpscalerConfig:
    frame_size: int = 64  # pixels; paper
    scale: int = 4  # large frames are 256×256; paper
    channels: tuple[int, ...] = (64, 128, 256, 512)  # of each level; paper: the small network, 31 M parameters.
    # The large one, 124 M: (128, 256, 512, 1024). The bottleneck has twice the channels of the last level.
    residual: bool = False  # ours: predict what bicubic interpolation misses; starts at bicubic and learns far faster

    def __post_init__(self) -> None:
        check_positive(self, "frame_size", "scale")
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"UpscalerConfig: channels are {list(self.channels)}, allowed: one or more, all positive")
        if self.large_size % 2 ** len(self.channels):
            raise ValueError(
                f"UpscalerConfig: frame_size · scale is {self.large_size}, allowed with {len(self.channels)} levels: "
                f"multiples of {2 ** len(self.channels)}"
            )

    @property
    def large_size(self) -> int:
        """Height and width of a large frame in pixels."""
        return self.frame_size * self.scale


class UpscalerOutput(NamedTuple):
    """Result of a training pass."""

    loss: Tensor  # scalar: mean squared error
    metrics: dict[str, Tensor]  # scalars without gradient
    large_BHWC: Tensor  # float pixels, ideally in [0, 1], not clipped


class Upscaler(nn.Module):
    """Frames → large frames. The module's docstring describes the architecture."""

    def __init__(self, config: UpscalerConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        self.down = nn.ModuleList(_double_conv(*pair) for pair in zip((CHANNELS, *widths), widths, strict=False))
        self.bottleneck = _double_conv(widths[-1], 2 * widths[-1])
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(2 * width, width, 2, stride=2) for width in reversed(widths))
        self.up = nn.ModuleList(_double_conv(2 * width, width) for width in reversed(widths))
        self.head = nn.Conv2d(widths[0], CHANNELS, 1)
        if config.residual:
            for parameter in self.head.parameters():
                nn.init.zeros_(parameter)  # so that the first prediction is the interpolated frame

    def forward(self, frames_BHWC: Tensor, large_BHWC: Tensor) -> UpscalerOutput:
        """Enlarges uint8 frames; returns the loss against uint8 large frames, and bicubic's error for comparison."""
        _check(frames_BHWC, self.config.frame_size, "frames")
        _check(large_BHWC, self.config.large_size, "large frames")
        if frames_BHWC.ndim != 4 or frames_BHWC.shape[:-3] != large_BHWC.shape[:-3]:
            raise ValueError(
                f"frames have shape {list(frames_BHWC.shape)} and large frames {list(large_BHWC.shape)}, allowed: "
                "[B, H, W, C], one large frame for each frame"
            )
        bicubic_BCHW = interpolate(frames_BHWC, self.config.scale)
        predicted_BCHW, true_BCHW = self._predict(bicubic_BCHW), _to_pixels(large_BHWC)
        loss = F.mse_loss(predicted_BCHW, true_BCHW)
        metrics = {
            "loss": loss.detach(),
            "reconstruction_mse": loss.detach(),
            "psnr": -10 * loss.detach().log10(),
            "bicubic_mse": F.mse_loss(bicubic_BCHW, true_BCHW),
        }
        return UpscalerOutput(loss, metrics, rearrange(predicted_BCHW, "b c h w -> b h w c"))

    @torch.no_grad()
    def upscale(self, frames: Tensor) -> Tensor:
        """uint8 frames [..., H, W, C] → uint8 large frames [..., H·scale, W·scale, C], a few at a time.

        Raises ValueError for other frames, and in training mode, where a frame's result would depend on its batch.
        """
        _check(frames, self.config.frame_size, "frames")
        if self.training:
            raise ValueError("the upscaler is in training mode, allowed: Upscaler.eval().upscale(…)")
        size = self.config.large_size
        large = torch.empty(*frames.shape[:-3], size, size, CHANNELS, dtype=torch.uint8, device=frames.device)
        parts = zip(_flat(frames).split(FRAMES_AT_ONCE), _flat(large).split(FRAMES_AT_ONCE), strict=True)
        for frames_BHWC, large_BHWC in parts:
            predicted_BCHW = self._predict(interpolate(frames_BHWC, self.config.scale))
            large_BHWC.copy_(to_uint8(rearrange(predicted_BCHW, "b c h w -> b h w c")))
        return large

    def _predict(self, bicubic_BCHW: Tensor) -> Tensor:
        """The U-Net on interpolated frames: float pixels, neither clipped nor rounded."""
        x, skipped = bicubic_BCHW, []
        for block in self.down:
            x = block(x)
            skipped.append(x)
            x = F.max_pool2d(x, 2)
        x = self.bottleneck(x)
        for enlarge, block in zip(self.enlarge, self.up, strict=True):
            x = block(torch.cat([skipped.pop(), enlarge(x)], dim=1))
        pixels_BCHW = self.head(x).float()
        return bicubic_BCHW + pixels_BCHW if self.config.residual else pixels_BCHW


def interpolate(frames_BHWC: Tensor, scale: int) -> Tensor:
    """uint8 frames enlarged by bicubic interpolation → float pixels [B, C, H·scale, W·scale], clipped to [0, 1]."""
    return F.interpolate(_to_pixels(frames_BHWC), scale_factor=scale, mode="bicubic").clamp(0, 1)


def _double_conv(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
    return nn.Sequential(*layers)


def _to_pixels(frames_BHWC: Tensor) -> Tensor:
    """uint8 frames → float pixels [B, C, H, W] in [0, 1]."""
    return rearrange(frames_BHWC, "b h w c -> b c h w").float() / 255


def _flat(frames: Tensor) -> Tensor:
    """Frames with any leading axes as one batch."""
    return frames.reshape(-1, *frames.shape[-3:])


def _check(frames: Tensor, size: int, name: str) -> None:
    """Raises ValueError unless the frames are uint8 [..., size, size, C]."""
    if frames.dtype != torch.uint8:
        raise ValueError(f"{name} are {frames.dtype}, allowed: torch.uint8 in [0, 255]")
    if frames.shape[-3:] != (size, size, CHANNELS):
        raise ValueError(f"{name} have shape {list(frames.shape)}, allowed: [..., {size}, {size}, {CHANNELS}]")
