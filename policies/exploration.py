"""Acting with exploration: the ε-mixture and its exact log-probabilities.

Every learned policy in this package samples its actions from a single distribution, so that the recorded
log-probability is that of the action taken (off-policy corrections depend on it):

    μ(a) = (1 − ε) · softmax(logits / temperature)(a) + ε / A

Axis letters: A actions.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Explorer(Protocol):
    """A module whose exploration can be set from outside, for acting with a trained policy."""

    def set_exploration(self, *, epsilon: float, temperature: float) -> None: ...


def mixture_log_probs(logits: Tensor, *, epsilon: float, temperature: float) -> Tensor:
    """Log-probabilities of the ε-mixture.

    Args:
        logits: [..., A] unnormalised log-probabilities.
        epsilon: share of uniformly drawn actions, in [0, 1].
        temperature: divides the logits, > 0.

    Returns:
        [..., A] log μ(a); −inf where μ(a) = 0.

    Raises:
        ValueError: epsilon or temperature out of range.
    """
    if not (0 <= epsilon <= 1 and temperature > 0):
        raise ValueError(f"epsilon is {epsilon}, temperature {temperature}; allowed: 0 to 1, and above 0")
    share = torch.tensor(epsilon, dtype=logits.dtype, device=logits.device)
    greedy = torch.log_softmax(logits / temperature, dim=-1) + torch.log1p(-share)
    return torch.logaddexp(greedy, torch.log(share / logits.shape[-1]))


def sample_actions(log_probs: Tensor) -> tuple[Tensor, Tensor]:
    """Draws one action per row, independently (torch's global generator), and its log-probability.

    Args:
        log_probs: [..., A] normalised log-probabilities.

    Returns:
        actions [...] int64 and their log-probabilities [...].
    """
    actions = torch.distributions.Categorical(logits=log_probs).sample()
    return actions, log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
