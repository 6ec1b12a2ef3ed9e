"""Tiny models shared by these tests: 16×16 frames, patches of 4 (a 4×4 token grid), clips of up to 6 frames."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieReduxConfig, GenieReduxG, GenieReduxGConfig
from world_model.latent_actions import LatentActionConfig
from world_model.layers.quantizer import QuantizerConfig
from world_model.published import PUBLISHED_CHOICES, UNGUIDED_CHOICES
from world_model.tokenizer import TokenizerConfig

FRAMES, SIZE, GRID, ACTIONS = 6, 16, (4, 4), 5
TINY = {"max_frames": FRAMES, "dim": 32, "blocks": 2, "heads": 2, "head_dim": 16}


def tokenizer_config(kind: str = "cosine", **changes: Any) -> TokenizerConfig:
    quantizer = QuantizerConfig(kind=kind, codes=32, code_dim=8, levels=(4, 3, 3))
    return TokenizerConfig(
        **{"frame_size": SIZE, "patch_size": 4, "quantizer": quantizer, "mean_frame": False, **TINY, **changes}
    )


def dynamics_config(**changes: Any) -> DynamicsConfig:
    """The published choices, in a tiny size, with the changes; an aligned model is masked "paired" by default."""
    return DynamicsConfig(**{"num_actions": ACTIONS, **TINY, **PUBLISHED_CHOICES, "masking": "auto", **changes})


def guided_model(kind: str = "cosine", **dynamics: Any) -> GenieReduxG:
    """A GenieRedux-G with random weights, in evaluation mode."""
    model = GenieReduxG(GenieReduxGConfig(tokenizer=tokenizer_config(kind), dynamics=dynamics_config(**dynamics)))
    model.tokenizer.train()(random_clip()[0])  # an "ema" codebook starts from its first batch
    return model.eval()


def unguided_config() -> GenieReduxConfig:
    return GenieReduxConfig(
        tokenizer=tokenizer_config(),
        dynamics=dynamics_config(**UNGUIDED_CHOICES),
        latent_actions=LatentActionConfig(
            frame_size=SIZE, patch_size=4, quantizer=QuantizerConfig(codes=7, code_dim=8), **TINY
        ),
    )


def random_clip(batch: int = 2, frames: int = FRAMES) -> tuple[Tensor, Tensor]:
    """Random frames [B, T, H, W, C] and the actions between them [B, T−1]."""
    pixels = torch.randint(0, 256, (batch, frames, SIZE, SIZE, 3), dtype=torch.uint8)
    return pixels, torch.randint(0, ACTIONS, (batch, frames - 1))


def moving_square(batch: int = 2, frames: int = FRAMES) -> tuple[Tensor, Tensor]:
    """A textured square that action 1 moves right by a patch and action 0 leaves: [B, T, H, W, C], [B, T−1].

    Textured, since the patch embedding's first LayerNorm hides the brightness of a uniform patch.
    """
    texture = torch.randint(100, 256, (4, 4, 3), dtype=torch.uint8)
    actions = torch.randint(0, 2, (batch, frames - 1))
    column = torch.cat([torch.zeros(batch, 1, dtype=torch.int64), actions.cumsum(dim=1)], dim=1) % GRID[1]
    pixels = torch.full((batch, frames, SIZE, SIZE, 3), 40, dtype=torch.uint8)
    for row, time in torch.cartesian_prod(torch.arange(batch), torch.arange(frames)).tolist():
        left = 4 * int(column[row, time])
        pixels[row, time, 4:8, left : left + 4] = texture
    return pixels, actions


def train(module: nn.Module, loss: Callable[[], Tensor], steps: int) -> None:
    """Takes optimiser steps on the module's parameters."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def shown_actions(batch: int = 8, frames: int = FRAMES) -> tuple[Tensor, Tensor]:
    """Clips whose frames are pictures of the actions that led to them: [B, T, H, W, C], [B, T−1]."""
    seed = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (ACTIONS, SIZE, SIZE, 3), dtype=torch.uint8, generator=seed)
    actions = torch.randint(0, ACTIONS, (batch, frames))
    return pictures[actions], actions[:, 1:]
