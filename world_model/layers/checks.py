"""Checks of a caller's inputs: configuration values, frames, actions, tokens. Each raises a one-line ValueError."""

from collections.abc import Sequence
from typing import Literal, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

CHANNELS = 3
MOST = {"blocks": 1000, "heads": 1000}
"""Fields that count parts built one by one: more would take minutes, long before any memory is short."""


def check_positive(config: object, *names: str) -> None:
    """Raises ValueError when one of the named fields of a config is below 1, or above what it may be at most."""
    for name in names:
        value = getattr(config, name)
        if value < 1:
            raise ValueError(f"{type(config).__name__}: {name} is {value}, allowed: 1 or more")
        if value > MOST.get(name, value):
            raise ValueError(f"{type(config).__name__}: {name} is {value}, allowed: 1 to {MOST[name]}")


def check_not_negative(config: object, *names: str) -> None:
    """Raises ValueError when one of the named fields of a config is below 0, or not a number."""
    for name in names:
        if not getattr(config, name) >= 0:
            raise ValueError(f"{type(config).__name__}: {name} is {getattr(config, name)}, allowed: 0 or more")


def check_shares(config: object, *names: str) -> None:
    """Raises ValueError unless each of the named fields of a config is in [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{type(config).__name__}: {name} is {getattr(config, name)}, allowed: 0 to below 1")


def check_frames(frames_BTHWC: Tensor, frame_size: int, max_frames: int) -> None:
    """Raises ValueError unless the frames are uint8 [B, T, size, size, 3] with 1 ≤ T ≤ max_frames."""
    if frames_BTHWC.dtype != torch.uint8:
        raise ValueError(f"frames are {frames_BTHWC.dtype}, allowed: torch.uint8 in [0, 255]")
    if frames_BTHWC.ndim != 5 or frames_BTHWC.shape[2:] != (frame_size, frame_size, CHANNELS):
        raise ValueError(
            f"frames have shape {list(frames_BTHWC.shape)}, allowed: [B, T, {frame_size}, {frame_size}, {CHANNELS}]"
        )
    if not len(frames_BTHWC):
        raise ValueError("a batch of 0 clips, allowed: 1 or more")
    check_length(frames_BTHWC.shape[1], max_frames)


def check_choices(config: object) -> None:
    """Raises ValueError unless each field that is declared as a Literal has one of its values."""
    for name, declared in get_type_hints(type(config)).items():
        value = getattr(config, name, None)
        if get_origin(declared) is Literal and value not in get_args(declared):
            raise ValueError(f"{type(config).__name__}: {name} is {value!r}, allowed: {get_args(declared)}")


def check_length(frames: int, max_frames: int) -> None:
    """Raises ValueError unless a clip's number of frames lies in 1..max_frames."""
    if not 1 <= frames <= max_frames:
        raise ValueError(f"a clip has {frames} frames, allowed: 1 to {max_frames}")


def check_actions(actions_BT: Tensor, shape: Sequence[int], num_actions: int) -> None:
    """Raises ValueError unless the actions are int64 of that shape with values in 0..num_actions−1."""
    if actions_BT.dtype != torch.int64:
        raise ValueError(f"actions are {actions_BT.dtype}, allowed: torch.int64")
    if list(actions_BT.shape) != list(shape):
        raise ValueError(
            f"actions have shape {list(actions_BT.shape)}, allowed: {list(shape)} (one between consecutive frames)"
        )
    if actions_BT.numel():
        low, high = actions_BT.aminmax()
        if low < 0 or high >= num_actions:
            raise ValueError(f"actions range from {low} to {high}, allowed: 0 to {num_actions - 1}")


def check_tokens(tokens_BTHW: Tensor, grid: tuple[int, int], codes: int) -> None:
    """Raises ValueError unless the tokens are int64 [B, T, H, W] on this grid with values in 0..codes−1."""
    if tokens_BTHW.dtype != torch.int64:
        raise ValueError(f"tokens are {tokens_BTHW.dtype}, allowed: torch.int64")
    if tokens_BTHW.ndim != 4 or tokens_BTHW.shape[2:] != grid:
        raise ValueError(f"tokens have shape {list(tokens_BTHW.shape)}, allowed: [B, T, {grid[0]}, {grid[1]}]")
    if tokens_BTHW.numel():
        low, high = tokens_BTHW.aminmax()
        if low < 0 or high >= codes:
            raise ValueError(f"tokens range from {low} to {high}, allowed: 0 to {codes - 1}")
