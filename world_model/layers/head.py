"""The last layer of a model, in full precision: logits and pixels are its results, not steps on the way.

bf16 has 8 bits: logits of 10 to 20 would come in steps of 0.06 to 0.12, and pixels near white in steps of 1/256.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVEL_STD = 0.05  # of a level's first weights


class HeadLinear(nn.Linear):
    """`nn.Linear` in the type of its weights, also under autocast: [..., D] → [..., out_features]."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            weight_KD, bias_K = self.weights()
            return F.linear(input.to(weight_KD.dtype), weight_KD, bias_K)

    def weights(self) -> tuple[Tensor, Tensor]:
        """Weights and bias of the whole layer, [K, D] and [K]."""
        return self.weight, self.bias


class LevelsHead(HeadLinear):
    """Logits of FSQ's codes (Mentzer et al., 2023, arXiv 2309.15505): [..., D] → [..., K].

    A code is a level in each of a few dimensions. Its weights are the sum of its own and of those of its levels, which
    it shares with its neighbours. So a rare code learns from common ones. Ours.

    Args:
        in_features: D.
        levels: how many each dimension has; K is their product.
    """

    members_KL: Tensor

    def __init__(self, in_features: int, levels: Sequence[int]) -> None:
        super().__init__(in_features, math.prod(levels))
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
        self.level_weight = nn.Parameter(LEVEL_STD * torch.randn(sum(levels), in_features))
        self.level_bias = nn.Parameter(torch.zeros(sum(levels)))
        self.register_buffer("members_KL", code_levels(levels), persistent=False)

    def weights(self) -> tuple[Tensor, Tensor]:
        shared_KD, shared_K = self.members_KL @ self.level_weight, self.members_KL @ self.level_bias
        return self.weight + shared_KD, self.bias + shared_K


def code_levels(levels: Sequence[int]) -> Tensor:
    """Which levels each code has, of all dimensions' levels in a row: float [K, Σ levels], one 1 for each dimension.

    Codes are numbered as in FSQ: the first dimension's level counts fastest.
    """
    codes_K, columns = torch.arange(math.prod(levels)), []
    for count in levels:
        columns.append(F.one_hot(codes_K % count, count).float())
        codes_K = codes_K // count
    return torch.cat(columns, dim=1)
