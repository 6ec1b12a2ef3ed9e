"""Random streams that depend only on names and numbers, not on where or in which order work is done."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_of(*parts: str | int) -> int:
    """A 56-bit seed that depends on all the parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big")


def seeded_generator(device: torch.device | str, *parts: str | int) -> torch.Generator:
    """A PyTorch generator whose stream depends on all the parts."""
    import torch

    return torch.Generator(device).manual_seed(seed_of(*parts))
