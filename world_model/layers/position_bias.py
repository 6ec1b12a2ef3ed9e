"""Position biases of attention: added to the scores of each head, learned within a frame, fixed along time.

Sources: continuous position bias from Liu et al., 2022 (arXiv 2111.09883); ALiBi from Press et al., 2022
(arXiv 2108.12409).

Axes: T frames, H W token grid, N = H·W, LL the (2H−1)·(2W−1) offsets between its positions, h heads.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


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
        # Only (2H−1)·(2W−1) offsets occur among N² pairs: the MLP sees each once, then every pair looks up its own.
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
