"""Frames as input of the networks: scaling, and the convolutions that embed them.

Axis letters: B frames, H W C frame, F features.
"""

from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn


def scale_frames(frames: Tensor) -> Tensor:
    """uint8 [..., H, W, C] → float32 [..., C, H, W] in [0, 1]: the only preprocessing, for acting and learning alike.

    Raises:
        ValueError: the frames are not uint8 (scaled twice, they would be black).
    """
    if frames.dtype != torch.uint8:
        raise ValueError(f"frames are {frames.dtype}; allowed: torch.uint8")
    return rearrange(frames, "... h w c -> ... c h w").float() / 255


def pooled_convolutions(frame_shape: tuple[int, int, int], channels: Sequence[int]) -> tuple[nn.Sequential, int]:
    """3×3 convolutions, each with 2×2 max-pooling: frames [B, C, H, W] → features [B, F].

    Args:
        frame_shape: H, W, C.
        channels: output channels of each convolution.

    Returns:
        the layers, and F.

    Raises:
        ValueError: the frames are too small.
    """
    height, width, depth = frame_shape
    layers: list[nn.Module] = []
    for count in channels:
        layers += [nn.Conv2d(depth, count, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
        depth, height, width = count, height // 2, width // 2
    if not height * width:
        raise ValueError(
            f"frames of shape {frame_shape} are too small for {len(channels)} convolutions, each of which halves them"
        )
    return nn.Sequential(*layers, nn.Flatten()), depth * height * width


def strided_convolutions(
    frame_shape: tuple[int, int, int],
    filters: Sequence[tuple[int, int, int]],
    prepare: Callable[[nn.Conv2d], nn.Conv2d] = lambda layer: layer,
) -> tuple[nn.Sequential, int]:
    """Convolutions with ReLU, as in Mnih et al. 2013: frames [B, C, H, W] → features [B, F].

    Args:
        frame_shape: H, W, C.
        filters: output channels, kernel and stride of each convolution.
        prepare: initialises a layer.

    Returns:
        the layers, and F.

    Raises:
        ValueError: the frames are too small.
    """
    height, width, depth = frame_shape
    layers: list[nn.Module] = []
    for channels, kernel, stride in filters:
        layers += [prepare(nn.Conv2d(depth, channels, kernel, stride)), nn.ReLU()]
        depth, height, width = channels, (height - kernel) // stride + 1, (width - kernel) // stride + 1
    if height < 1 or width < 1:
        raise ValueError(f"frames of shape {frame_shape} are too small for {filters}")
    return nn.Sequential(*layers, nn.Flatten()), depth * height * width
