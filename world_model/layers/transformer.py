"""The spatio-temporal (ST) transformer shared by tokenizer, latent action model and dynamics.

One block is a spatial half (attention among the tokens of one frame) and a temporal half (causal attention along
time at one grid position). Each half adds to its input, one after another: a position encoding generator (PEG),
attention, and a feed-forward network. Nothing at frame t depends on frames after t.

Sources: Genie (Bruce et al., 2024, arXiv 2402.15391, Sec. 2), GenieRedux (Kazemi et al., 2024, arXiv 2409.06445,
Sec. 3 and its released implementation); PEG from Chu et al., 2021 (arXiv 2102.10882).

Axes: B batch, T frames, H W token grid, N = H·W, D width, h heads, C dimensions of a head.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from world_model.layers.attention import Attention, HalfBlockCache
from world_model.layers.position_bias import causal_alibi_bias

FEED_FORWARD_MULTIPLE = 4  # × 2/3, since a gated unit has two input projections

Order = Literal["st", "ts"]


class PositionEncodingGenerator(nn.Module):
    """Depthwise 3×3×3 convolution over (T, H, W), zero-padded, causal in time: [B, T, H, W, D] → the same.

    `paired`: see `SpatioTemporalTransformer`. If the clip is fed in pieces, `past_BTHWD` is what `past` makes of the
    frames before.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(dim, dim, kernel_size=3, groups=dim)

    def forward(self, x_BTHWD: Tensor, past_BTHWD: Tensor | None = None, paired: bool = False) -> Tensor:
        frames = x_BTHWD.shape[1]
        out = self._tap(x_BTHWD, 0)
        if paired:
            clips = x_BTHWD.shape[0] // 2
            for delay in (1, 2):  # frame i of an asked clip follows frame i of its known one
                past = self._tap(x_BTHWD[:clips, : max(0, frames - delay + 1)], delay)
                out[clips:, delay - 1 :] += past
                out[:clips, delay:] += past[:, : frames - delay]
            return out
        for delay in (1, 2):
            if delay < frames:
                out[:, delay:] += self._tap(x_BTHWD[:, : frames - delay], delay)
        if past_BTHWD is not None:
            out[:, : past_BTHWD.shape[1]] += past_BTHWD
        return out

    def past(self, before_BTHWD: Tensor, frames: int) -> Tensor | None:
        """What up to two frames before a piece add to its first frames, of which it has so many; None if nothing."""
        known, reached = before_BTHWD.shape[1], min(frames, 2)
        if not known:
            return None
        latest = self._tap(before_BTHWD, 2)  # two frames later
        past_BTHWD = F.pad(latest[:, :reached], (0, 0, 0, 0, 0, 0, 2 - known, 0))[:, :reached]
        past_BTHWD[:, :1] += self._tap(before_BTHWD[:, -1:], 1)
        return past_BTHWD

    def _tap(self, x_BTHWD: Tensor, delay: int) -> Tensor:
        """What frames add to those that come `delay` later, a 2-D convolution.

        The three taps' sum is the 3-D convolution, but almost three times as fast on a CPU (channels stay last, so
        nothing is transposed).
        """
        weight, bias = self.conv.weight, None if delay else self.conv.bias
        kernel = weight[:, :, 2 - delay].contiguous(memory_format=torch.channels_last)
        images = rearrange(x_BTHWD, "b t h w d -> (b t) d h w")
        out = F.conv2d(images, kernel, bias, padding=1, groups=weight.shape[0])
        return rearrange(out, "(b t) d h w -> b t h w d", b=x_BTHWD.shape[0])


class FeedForward(nn.Module):
    """LayerNorm → two projections to ⌊4·2/3·D⌋ → GELU(gate) · value (GEGLU) → projection back to D."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = int(dim * FEED_FORWARD_MULTIPLE * 2 / 3)
        self.norm = nn.LayerNorm(dim)
        self.to_value_and_gate = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x).to(x.dtype)  # on a GPU, autocast makes norms fp32
        value, gate = (F.linear(x, weight) for weight in self.to_value_and_gate.weight.chunk(2))
        return self.to_out(F.gelu(gate) * value)


class HalfBlock(nn.Module):
    """PEG → attention along one axis → feed-forward, each added to its input: [B, T, H, W, D] → the same."""

    def __init__(self, dim: int, heads: int, head_dim: int, axis: Literal["space", "time"]) -> None:
        super().__init__()
        self.along_time = axis == "time"
        self.rows = "(b h w) t d" if self.along_time else "(b t) (h w) d"
        self.peg = PositionEncodingGenerator(dim)
        self.attention = Attention(dim, heads, head_dim)
        self.feed_forward = FeedForward(dim)

    def forward(
        self,
        x_BTHWD: Tensor,
        bias_hSS: Tensor,
        cache: HalfBlockCache | None = None,
        start: int = 0,
        paired: bool = False,
        asked_only: bool = False,
        skipped: int = 0,
    ) -> Tensor:
        """`asked_only`: of pairs, returns the asked clips only (in the half that lets them read the known ones).
        `skipped`: leaves out so many first frames, which others only read (along time, not with pairs)."""
        x = x_BTHWD + self.peg(x_BTHWD, None if cache is None else cache.past(x_BTHWD, start, self.peg.past), paired)
        rows = rearrange(x, f"b t h w d -> {self.rows}").contiguous()
        if paired and self.along_time:
            attended = self.attention.forward_paired(rows, bias_hSS, asked_only=asked_only)
        else:
            attended = self.attention(rows, bias_hSS, cache if self.along_time else None, start, skipped)
        x = x.chunk(2)[1] if asked_only else x[:, skipped:]
        b, t, h, w, _ = x.shape
        x = x + rearrange(attended, f"{self.rows} -> b t h w d", b=b, t=t, h=h, w=w)
        return x + self.feed_forward(x)


class TransformerCache:
    """A stack's cache of up to `capacity` past frames, so that a later frame does not recompute them."""

    def __init__(self, transformer: "SpatioTemporalTransformer", capacity: int) -> None:
        self.spatial, self.temporal = ([HalfBlockCache(capacity) for _ in transformer.spatial] for _ in range(2))


class SpatioTemporalTransformer(nn.Module):
    """A stack of ST blocks with one output norm: [B, T, H, W, D] → the same, T ≤ `max_frames`.

    `order`: spatial half first ("st": encoders and dynamics) or temporal half first ("ts": decoders).
    """

    temporal_bias_hTT: Tensor

    def __init__(
        self, *, dim: int, blocks: int, heads: int, head_dim: int, max_frames: int, order: Order = "st"
    ) -> None:
        super().__init__()
        self.order = order
        self.checkpoint_activations = False  # recompute half blocks in the backward pass to save memory
        self.spatial = nn.ModuleList(HalfBlock(dim, heads, head_dim, "space") for _ in range(blocks))
        self.temporal = nn.ModuleList(HalfBlock(dim, heads, head_dim, "time") for _ in range(blocks))
        self.norm = nn.LayerNorm(dim, bias=False)
        self.register_buffer("temporal_bias_hTT", causal_alibi_bias(heads, max_frames), persistent=False)

    def forward(
        self,
        x_BTHWD: Tensor,
        spatial_bias_hNN: Tensor,
        *,
        before_block: Callable[[Tensor, int], Tensor] | None = None,
        cache: TransformerCache | None = None,
        start: int = 0,
        paired: bool = False,
        skipped: int = 0,
    ) -> Tensor:
        """Processes frames `start`.. of a clip; earlier ones are in the cache.

        Args:
            x_BTHWD: the frames, [B, T, H, W, D].
            spatial_bias_hNN: additive bias of spatial attention.
            before_block: applied to the stream before every block, with the block's number.
            cache: past frames; these are added to it.
            start: position of the first frame in its clip.
            paired: the first half of the batch are known clips, frames 0..T−1; the second half asks for their frames
                1..T, each of which reads the known frames before it, and itself. Returns the asked ones, [B/2, T, …].
                Not with a cache.
            skipped: how many of the first frames nobody wants the output of: [B, T − skipped, …]. Order "st" only.
        """
        assert not skipped or (self.order == "st" and not paired)
        end = start + x_BTHWD.shape[1] + paired
        temporal_bias_hTS = self.temporal_bias_hTT[:, start:end, :end]
        x = x_BTHWD
        if torch.is_autocast_enabled(x.device.type):  # the stream, too, or every layer would cast it again
            dtype = torch.get_autocast_dtype(x.device.type)
            x, spatial_bias_hNN, temporal_bias_hTS = (z.to(dtype) for z in (x, spatial_bias_hNN, temporal_bias_hTS))
        for index, (spatial, temporal) in enumerate(zip(self.spatial, self.temporal, strict=True)):
            if before_block is not None:
                x = before_block(x, index)
            halves = [
                (spatial, spatial_bias_hNN, cache and cache.spatial[index]),
                (temporal, temporal_bias_hTS, cache and cache.temporal[index]),
            ]
            for half, bias, kept in halves if self.order == "st" else reversed(halves):
                last = half is self.temporal[-1]  # what known clips and skipped frames become there, nobody reads
                arguments = x, bias, kept, start, paired, paired and last, skipped if last else 0
                if self.checkpoint_activations and torch.is_grad_enabled():
                    x = checkpoint(half, *arguments, use_reentrant=False)
                else:
                    # A cached clip runs uncompiled: each of its lengths would need its own compilation.
                    x = (half if kept is None else half.forward)(*arguments)
        return self.norm(x)

    def compile_halves(self) -> None:
        """Has torch.compile fuse each half block, except in cached decoding; all of a kind share a program."""
        for half in (*self.spatial, *self.temporal):
            half.compile()
        # Space and time, training and validation, whole and last batches each need their own program.
        torch._dynamo.config.recompile_limit = max(32, torch._dynamo.config.recompile_limit)


def transformers(model: nn.Module) -> Iterator[SpatioTemporalTransformer]:
    """All stacks of a model."""
    return (module for module in model.modules() if isinstance(module, SpatioTemporalTransformer))
