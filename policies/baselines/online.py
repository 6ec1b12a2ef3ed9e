"""What models that learn online have in common: a restart goes on where they were."""

from typing import Any

import torch
from torch import nn


class OnlineLearner(nn.Module):
    """A model with its optimiser and the number of updates that it made."""

    optimizer: torch.optim.Optimizer
    updates: int

    def get_state(self) -> dict[str, Any]:
        """All that a restart needs to continue: weights, optimiser, number of updates."""
        return {"model": self.state_dict(), "optimizer": self.optimizer.state_dict(), "updates": self.updates}

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes up a state of `get_state`."""
        self.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates = state["updates"]
