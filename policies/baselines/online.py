"""Base of models that learn online and resume after a restart."""

from typing import Any

import torch
from torch import nn


class OnlineLearner(nn.Module):
    """A model with its optimiser and its number of updates."""

    optimizer: torch.optim.Optimizer
    updates: int

    def get_state(self) -> dict[str, Any]:
        """Everything needed to resume: weights, optimiser, number of updates."""
        return {"model": self.state_dict(), "optimizer": self.optimizer.state_dict(), "updates": self.updates}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a state from `get_state`."""
        self.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates = state["updates"]
