"""The parts of a world model that a player needs, as modules whose shapes are fixed, for export.

An "aligned" model is exported in steps: a graph takes one frame, and what earlier frames left (`Past`), which the
player keeps. A "shifted" one takes whole clips. Nothing at a frame depends on later ones, so frames that are not there
yet may hold anything.

Axes: B batch (1), T frames of a clip, H W pixels or token grid, C colour channels or channels of a head, N = H·W tokens
of a frame, K codes, D width, L blocks, h heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world_model.genie import GenieReduxG
from world_model.layers.attention import HalfBlockCache
from world_model.layers.conditioning import condition
from world_model.layers.patches import from_patches
from world_model.layers.transformer import HalfBlock, SpatioTemporalTransformer


class Past(NamedTuple):
    """What a transformer keeps of earlier frames; or, of one frame (S = 1), what it leaves to later ones."""

    inputs: Tensor  # of the half blocks, spatial ones first: [2 L, S, H, W, D]; of the last two frames, zeros if none
    keys: Tensor  # [L, N, h, S, C]; of all T frames of a clip, anything where there is none yet
    values: Tensor  # the same


class Encode(nn.Module):
    """Frames uint8 [1, T, H, W, C] → tokens int64 [1, T, H, W]."""

    def __init__(self, model: GenieReduxG) -> None:
        super().__init__()
        self.tokenizer = model.tokenizer

    def forward(self, frames: Tensor) -> Tensor:
        return self.tokenizer.encode(frames)


class Dynamics(nn.Module):
    """A clip's tokens and actions → logits [1, N, K] of the tokens of one frame, int64 [1]."""

    def __init__(self, model: GenieReduxG) -> None:
        super().__init__()
        self.tokenizer, self.dynamics = model.tokenizer, model.dynamics

    def forward(self, tokens: Tensor, actions: Tensor, frame: Tensor) -> Tensor:
        features_BTHWE = self.dynamics.features(tokens, actions, self.tokenizer.token_vectors())
        return self.dynamics.to_logits(features_BTHWE.index_select(1, frame - 1)).flatten(1, 3)


class Decode(nn.Module):
    """A clip's tokens → pixels [1, H, W, C] in [0, 1] of one frame, int64 [1]."""

    def __init__(self, model: GenieReduxG) -> None:
        super().__init__()
        self.tokenizer = model.tokenizer

    def forward(self, tokens: Tensor, frame: Tensor) -> Tensor:
        vectors_BTHWD = F.embedding(tokens, self.tokenizer.token_vectors())
        patches_BTHWP = self.tokenizer.decode_vectors(vectors_BTHWD, self.tokenizer.spatial_bias())
        return from_patches(patches_BTHWP.index_select(1, frame), self.tokenizer.config.patch_size)[:, 0].clamp(0, 1)


class DynamicsStep(nn.Module):
    """A frame's tokens [1, 1, H, W], the action that led to it and its place [1] → logits [1, N, K], and its `Past`."""

    def __init__(self, model: GenieReduxG) -> None:
        super().__init__()
        self.tokenizer, self.dynamics = model.tokenizer, model.dynamics

    def forward(
        self, tokens: Tensor, action: Tensor, frame: Tensor, inputs: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dynamics, config = self.dynamics, self.dynamics.config
        positions_THWD = dynamics.position_embedding.weight.unflatten(0, (config.max_frames, *dynamics.grid))
        x_BTHWD = dynamics.token_embedding(tokens) + positions_THWD.index_select(0, frame)[None]
        if config.token_input_scale:
            x_BTHWD = x_BTHWD + F.embedding(tokens, dynamics.token_inputs(self.tokenizer.token_vectors()))
        action_BTA = F.one_hot(action, config.num_actions)[None] * (frame > 0)  # none leads to the first frame

        def before_block(x: Tensor, block: int) -> Tensor:
            if block and config.actions_at == "input":
                return x
            given_BTE = action_BTA.to(x.dtype)
            if config.conditioning in ("embedding", "scale"):
                given_BTE = given_BTE @ dynamics.action_vectors_XAE[block]
            return condition(x[..., : config.dim], given_BTE, config.conditioning)

        past = Past(inputs, keys, values)
        x_BTHWD, left = step(dynamics.transformer, x_BTHWD, dynamics.spatial_bias(), past, frame, before_block)
        return dynamics.to_logits(x_BTHWD).flatten(1, 3), *left


class DecodeStep(nn.Module):
    """A frame's tokens [1, 1, H, W] and its place [1] → pixels [1, H, W, C] in [0, 1], and its `Past`."""

    def __init__(self, model: GenieReduxG) -> None:
        super().__init__()
        self.tokenizer = model.tokenizer

    def forward(
        self, tokens: Tensor, frame: Tensor, inputs: Tensor, keys: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tokenizer, past = self.tokenizer, Past(inputs, keys, values)
        vectors_BTHWD = F.embedding(tokens, tokenizer.token_vectors())
        x_BTHWD, left = step(tokenizer.decoder, vectors_BTHWD, tokenizer.spatial_bias(), past, frame)
        head = tokenizer.pixel_head
        patches_BTHWP = torch.where(frame == 0, head.first_frame(x_BTHWD), head.next_frames(x_BTHWD))
        if tokenizer.config.decoder_mean_frame:
            patches_BTHWP = patches_BTHWP + tokenizer.decoder_mean_patches_HWP
        elif tokenizer.config.mean_frame:
            patches_BTHWP = patches_BTHWP + tokenizer.mean_patches_HWP
        return from_patches(patches_BTHWP, tokenizer.config.patch_size)[:, 0].clamp(0, 1), *left


class _GivenCache(HalfBlockCache):
    """A half block's cache whose past is given, and which notes what this frame leaves."""

    def __init__(self, past: Past, half: int, block: int, frame: Tensor) -> None:
        super().__init__(past.keys.shape[3])
        self._before_BTHWD = past.inputs[half : half + 1]
        self._keys, self._values = past.keys[block], past.values[block]
        self._here_T1 = (torch.arange(past.keys.shape[3]) == frame)[:, None]

    def before(self, x_BTHWD: Tensor, start: int) -> Tensor:
        self.input_BTHWD = x_BTHWD
        return self._before_BTHWD

    def extend(self, k_MhTC: Tensor, v_MhTC: Tensor, start: int) -> tuple[Tensor, Tensor]:
        self.key_MhTC, self.value_MhTC = k_MhTC, v_MhTC
        return torch.where(self._here_T1, k_MhTC, self._keys), torch.where(self._here_T1, v_MhTC, self._values)


def step(
    transformer: SpatioTemporalTransformer,
    x_BTHWD: Tensor,
    spatial_bias_hNN: Tensor,
    past: Past,
    frame: Tensor,
    before_block: Callable[[Tensor, int], Tensor] | None = None,
) -> tuple[Tensor, Past]:
    """The transformer's output for one frame, [1, 1, H, W, D], and what it leaves.

    The same as `SpatioTemporalTransformer.forward` with a cache, but the frame's place is a tensor, int64 [1]. Frames
    after it are hidden by the bias.
    """
    temporal_bias_h1T = transformer.temporal_bias_hTT.index_select(1, frame)
    spatial, temporal = [], []
    for block, halves in enumerate(zip(transformer.spatial, transformer.temporal, strict=True)):
        if before_block is not None:
            x_BTHWD = before_block(x_BTHWD, block)
        caches = [_GivenCache(past, block + half * len(transformer.spatial), block, frame) for half in (0, 1)]
        spatial.append(caches[0])
        temporal.append(caches[1])
        steps = list(zip(halves, (spatial_bias_hNN, temporal_bias_h1T), caches, strict=True))
        for half_block, bias, cache in steps if transformer.order == "st" else reversed(steps):
            x_BTHWD = half_block(x_BTHWD, bias, cache)
    left = Past(
        torch.cat([cache.input_BTHWD for cache in (*spatial, *temporal)]),
        torch.stack([cache.key_MhTC for cache in temporal]),
        torch.stack([cache.value_MhTC for cache in temporal]),
    )
    return transformer.norm(x_BTHWD), left


def no_past(transformer: SpatioTemporalTransformer, grid: tuple[int, int], frames: int) -> Past:
    """The `Past` of a clip's first frame; a clip has T = `frames`."""
    blocks, half = len(transformer.temporal), transformer.temporal[0]
    assert isinstance(half, HalfBlock)
    (width,), channels = transformer.norm.normalized_shape, len(half.attention.q_scale)
    keys = torch.zeros(blocks, grid[0] * grid[1], half.attention.heads, frames, channels)
    return Past(torch.zeros(2 * blocks, 2, *grid, width), keys, keys.clone())
