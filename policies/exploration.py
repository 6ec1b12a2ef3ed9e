"""Acting with exploration: the ε-mixture, its exact log-probabilities, and policies from disk.

Every learned policy in this package samples its actions from a single distribution, so that the recorded
log-probability is that of the action taken (off-policy corrections depend on it):

    μ(a) = (1 − ε) · softmax(logits / temperature)(a) + ε / A

Axis letters: A actions.
"""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModule
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


def load_module(checkpoint: str | Path, **exploration: Any) -> RLModule:
    """Loads a trained policy, ready to act.

    Args:
        checkpoint: directory of an algorithm's checkpoint (`Algorithm.save_to_path`) or of a module's
            (`RLModule.save_to_path`).
        exploration: `epsilon` and `temperature` to act with; without them, those of the checkpoint's config.

    Raises:
        ValueError: no policy in that directory.
    """
    directory = Path(checkpoint).absolute()
    inside = directory / COMPONENT_LEARNER_GROUP / COMPONENT_LEARNER / COMPONENT_RL_MODULE / DEFAULT_MODULE_ID
    path = inside if inside.is_dir() else directory
    if not (path / "module_state.pkl").is_file():
        raise ValueError(f"no policy checkpoint in {directory}")
    module = RLModule.from_checkpoint(path)
    if exploration:
        assert isinstance(module, Explorer)
        module.set_exploration(**exploration)
    return module
