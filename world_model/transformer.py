"""The spatio-temporal (ST) transformer shared by tokenizer, latent action model and dynamics.

One block is a spatial half (attention among the tokens of one frame) and a temporal half (causal attention along
time at one grid position). Each half adds to its input, one after another: a position encoding generator (PEG),
attention, and a feed-forward network. Nothing at frame t depends on frames after t.

Sources: Genie (Bruce et al., 2024, arXiv 2402.15391, Sec. 2), GenieRedux (Kazemi et al., 2024, arXiv 2409.06445,
Sec. 3 and its released implementation); PEG from Chu et al., 2021 (arXiv 2102.10882); ALiBi from Press et al., 2022
(arXiv 2108.12409); continuous position bias from Liu et al., 2022 (arXiv 2111.09883).

Axes: B batch, T frames, H W token grid, N = H·W, D width, h heads, C dimensions of a head.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

ATTENTION_SCALE = 8.0  # cosine similarities lie in [−1, 1]; the fixed factor lets the softmax become sharp
FEED_FORWARD_MULTIPLE = 4  # × 2/3, since a gated unit has two input projections

Order = Literal["st", "ts"]


class PositionEncodingGenerator(nn.Module):
    """Depthwise 3×3×3 convolution over (T, H, W), zero-padded, causal in time: [B, T, H, W, D] → the same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(dim, dim, kernel_size=3, groups=dim)

    def forward(self, x_BTHWD: Tensor) -> Tensor:
        # One 2-D convolution of all frames per time tap, each shifted to its frame: the same sum as the 3-D
        # convolution, and on a CPU almost three times as fast (channels stay last, so nothing is transposed).
        frames = rearrange(x_BTHWD, "b t h w d -> (b t) d h w")
        weight = self.conv.weight

        def tap(delay: int, bias: Tensor | None) -> Tensor:
            kernel = weight[:, :, 2 - delay].contiguous(memory_format=torch.channels_last)
            out = F.conv2d(frames, kernel, bias, padding=1, groups=weight.shape[0])
            return rearrange(out, "(b t) d h w -> b t h w d", b=x_BTHWD.shape[0])

        now, one_ago, two_ago = tap(0, self.conv.bias), tap(1, None), tap(2, None)
        return now + _delay(one_ago, 1) + _delay(two_ago, 2)


def _delay(x_BTHWD: Tensor, frames: int) -> Tensor:
    """Moves every frame `frames` later; zeros come in at the front."""
    return F.pad(x_BTHWD, (0, 0, 0, 0, 0, 0, frames, 0))[:, : x_BTHWD.shape[1]]


class ContinuousPositionBias(nn.Module):
    """A small MLP from signed-log relative positions (dy, dx) to one additive attention bias per head.

    `hidden` is the MLP's hidden size; `grid` the (H, W) of the tokens. Returns [h, N, N] (query, key).
    """

    relative_LL2: Tensor
    index_NN: Tensor

    def __init__(self, grid: tuple[int, int], heads: int, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2, hidden),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.1),
            nn.Linear(hidden, heads),
        )
        height, width = grid
        # Only (2H−1)·(2W−1) offsets occur among N² pairs: the MLP sees each once, then pairs look theirs up.
        dy, dx = torch.meshgrid(torch.arange(1 - height, height), torch.arange(1 - width, width), indexing="ij")
        offsets = torch.stack([dy, dx], dim=-1).flatten(0, 1).float()
        y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
        index = (y[:, None] - y + height - 1) * (2 * width - 1) + (x[:, None] - x + width - 1)
        self.register_buffer("relative_LL2", offsets.sign() * offsets.abs().log1p(), persistent=False)
        self.register_buffer("index_NN", index, persistent=False)

    def forward(self) -> Tensor:
        per_offset = self.mlp(self.relative_LL2)
        return rearrange(F.embedding(self.index_NN, per_offset), "n m h -> h n m").contiguous()


def alibi_slopes(heads: int) -> Tensor:
    """ALiBi's slope per head [h]: 2^(−8i/h), i = 1..h, for a power of two; else the next lower power's slopes,
    then every second one of the next higher power's, until there are `heads` (Press et al., 2022, Sec. 3)."""
    lower = 2 ** int(math.log2(heads))

    def geometric(count: int) -> list[float]:
        return [2 ** (-8 * i / count) for i in range(1, count + 1)]

    return torch.tensor((geometric(lower) + geometric(2 * lower)[::2])[:heads])


def causal_alibi_bias(heads: int, frames: int) -> Tensor:
    """Additive bias of temporal attention [h, T, T] (query, key): −slope · distance; −inf towards the future."""
    time = torch.arange(frames)
    distance = time[:, None] - time
    bias = -alibi_slopes(heads)[:, None, None] * distance.abs()
    return bias.masked_fill(distance < 0, -torch.inf)


class Attention(nn.Module):
    """Cosine-similarity attention over the last-but-one axis: [..., S, D] → the same.

    Queries and keys are L2-normalised and scaled per dimension. As published, only the queries see the pre-norm;
    keys and values are projected from the un-normalised input.
    """

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim, bias=False)
        self.to_q = nn.Linear(dim, heads * head_dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * heads * head_dim, bias=False)
        self.q_scale = nn.Parameter(torch.ones(head_dim))
        self.k_scale = nn.Parameter(torch.ones(head_dim))
        self.to_out = nn.Linear(heads * head_dim, dim, bias=False)

    def forward(self, x_MSD: Tensor, bias_hSS: Tensor) -> Tensor:
        projections = self.to_q(self.norm(x_MSD)), *self.to_kv(x_MSD).chunk(2, dim=-1)
        q, k, v = (rearrange(z, "m s (h c) -> m s h c", h=self.heads) for z in projections)
        q, k = _normalize(q, self.q_scale), _normalize(k, self.k_scale)
        q, k, v = (rearrange(z, "m s h c -> m h s c") for z in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias_hSS[None], scale=ATTENTION_SCALE)
        return self.to_out(rearrange(out, "m h s c -> m s (h c)"))


def _normalize(x: Tensor, scale: Tensor) -> Tensor:
    """x / |x| · scale over the last axis, with fewer passes over memory than torch's `normalize`."""
    return x * (x.square().sum(dim=-1, keepdim=True).add(1e-12).rsqrt() * scale)


class FeedForward(nn.Module):
    """LayerNorm → two projections to ⌊4·2/3·D⌋ → GELU(gate) · value (GEGLU) → projection back to D."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        inner = int(dim * FEED_FORWARD_MULTIPLE * 2 / 3)
        self.norm = nn.LayerNorm(dim)
        self.to_value_and_gate = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        value, gate = (F.linear(x, weight) for weight in self.to_value_and_gate.weight.chunk(2))
        return self.to_out(F.gelu(gate) * value)


class HalfBlock(nn.Module):
    """PEG → attention along one axis → feed-forward, each added to its input: [B, T, H, W, D] → the same."""

    def __init__(self, dim: int, heads: int, head_dim: int, axis: Literal["space", "time"]) -> None:
        super().__init__()
        self.rows = "(b t) (h w) d" if axis == "space" else "(b h w) t d"
        self.peg = PositionEncodingGenerator(dim)
        self.attention = Attention(dim, heads, head_dim)
        self.feed_forward = FeedForward(dim)

    def forward(self, x_BTHWD: Tensor, bias_hSS: Tensor) -> Tensor:
        b, t, h, w, _ = x_BTHWD.shape
        x = x_BTHWD + self.peg(x_BTHWD)
        attended = self.attention(rearrange(x, f"b t h w d -> {self.rows}"), bias_hSS)
        x = x + rearrange(attended, f"{self.rows} -> b t h w d", b=b, t=t, h=h, w=w)
        return x + self.feed_forward(x)


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
        self.spatial = nn.ModuleList(HalfBlock(dim, heads, head_dim, "space") for _ in range(blocks))
        self.temporal = nn.ModuleList(HalfBlock(dim, heads, head_dim, "time") for _ in range(blocks))
        self.norm = nn.LayerNorm(dim, bias=False)
        self.register_buffer("temporal_bias_hTT", causal_alibi_bias(heads, max_frames), persistent=False)

    def forward(self, x_BTHWD: Tensor, spatial_bias_hNN: Tensor) -> Tensor:
        frames = x_BTHWD.shape[1]
        temporal_bias_hTT = self.temporal_bias_hTT[:, :frames, :frames]
        x = x_BTHWD
        for spatial, temporal in zip(self.spatial, self.temporal, strict=True):
            if self.order == "st":
                x = temporal(spatial(x, spatial_bias_hNN), temporal_bias_hTT)
            else:
                x = spatial(temporal(x, temporal_bias_hTT), spatial_bias_hNN)
        return self.norm(x)
