"""The ε-mixture that agents act with."""

import math

import pytest
import torch

from policies.exploration import mixture_log_probs, sample_actions


@pytest.mark.parametrize(("epsilon", "temperature"), [(0.0, 1.0), (0.1, 1.0), (0.3, 0.5), (1.0, 2.0)])
def test_mixture_is_its_formula(epsilon: float, temperature: float) -> None:
    logits = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    weights = [math.exp(x / temperature) for x in logits.tolist()]
    expected = [(1 - epsilon) * w / sum(weights) + epsilon / 4 for w in weights]
    actual = mixture_log_probs(logits, epsilon=epsilon, temperature=temperature).exp()
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64))


def test_sampled_actions_come_with_their_own_log_probs() -> None:
    torch.manual_seed(0)
    probs = torch.tensor([0.1, 0.2, 0.3, 0.4])
    actions, log_probs = sample_actions(probs.log().expand(20_000, 4))
    torch.testing.assert_close(log_probs, probs.log()[actions])
    torch.testing.assert_close(torch.bincount(actions) / 20_000, probs, atol=0.015, rtol=0)
