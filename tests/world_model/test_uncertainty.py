"""Entropy and top-k mean against hand-calculated numbers."""

import math

import pytest
import torch

from world_model.uncertainty import token_entropy, top_k_mean


def test_entropy_by_hand() -> None:
    logits_BNK = torch.tensor([[[0.0, 0.0, 0.0, 0.0], [1e4, 0.0, 0.0, 0.0], [0.0, 0.0, -1e4, -1e4]]])
    torch.testing.assert_close(token_entropy(logits_BNK), torch.tensor([[1.0, 0.0, 0.5]]))
    quarter = torch.tensor([[[0.25, 0.75]]]).log() + 7
    wanted = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(2)
    torch.testing.assert_close(token_entropy(quarter), torch.tensor([[wanted]]))


def test_top_k_mean_by_hand() -> None:
    uncertainty_BN = torch.tensor([[0.1, 0.9, 0.5, 0.3, 0.7], [0.0, 0.0, 0.0, 0.0, 1.0]])
    torch.testing.assert_close(top_k_mean(uncertainty_BN, 0.5), torch.tensor([0.8, 0.5]))  # ⌊2.5⌋ = 2
    torch.testing.assert_close(top_k_mean(uncertainty_BN, 0.1), torch.tensor([0.9, 1.0]))  # at least one
    torch.testing.assert_close(top_k_mean(uncertainty_BN, 1.0), torch.tensor([0.5, 0.2]))


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_impossible_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="allowed: above 0 up to 1"):
        top_k_mean(torch.rand(1, 4), fraction)
