"""Position biases against their definitions."""

import pytest
import torch

from world_model.layers.position_bias import ContinuousPositionBias, alibi_slopes, causal_alibi_bias


@pytest.mark.parametrize(
    ("heads", "exponents"),
    [(1, [8]), (2, [4, 8]), (8, [1, 2, 3, 4, 5, 6, 7, 8]), (3, [4, 8, 2]), (6, [2, 4, 6, 8, 1, 3])],
)
def test_alibi_slopes(heads: int, exponents: list[int]) -> None:
    torch.testing.assert_close(alibi_slopes(heads), torch.tensor([2.0**-e for e in exponents]))


def test_alibi_bias_is_causal_and_linear_in_the_distance() -> None:
    bias_hTT = causal_alibi_bias(heads=2, frames=4)
    assert bias_hTT[0, 3].tolist() == [-3 / 16, -2 / 16, -1 / 16, 0]
    assert bias_hTT[1, 1].tolist() == [-1 / 256, 0, -torch.inf, -torch.inf]


def test_position_bias_sees_signed_log_offsets() -> None:
    height, width, heads = 3, 4, 2
    bias = ContinuousPositionBias((height, width), heads, hidden=5)
    bias_hNN = bias()
    for query in range(height * width):
        for key in range(height * width):
            offset = torch.tensor([query // width - key // width, query % width - key % width]).float()
            wanted = bias.mlp(offset.sign() * (offset.abs() + 1).log())
            torch.testing.assert_close(bias_hNN[:, query, key], wanted)
