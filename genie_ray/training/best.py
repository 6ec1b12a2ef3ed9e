"""Which validation of a training was its best: by the metric of its task, the same one from start to end."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genie_ray.training.tasks import Task


@dataclass
class Best:
    """The best validation so far; lower is better."""

    name: str | None = None  # of the metric that is compared; None before the first validation
    value: float = math.inf

    def take(self, task: Task, validation: Mapping[str, float]) -> bool:
        """Whether this validation is the best so far; it then is the one to beat."""
        self.name, value = task.score(validation) if self.name is None else (self.name, validation[self.name])
        if value < self.value:
            self.value = value
            return True
        return False

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.value, "scored_by": self.name}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Best:
        """Of a resumed training: it keeps its rule. Before rules were saved, the loss was it."""
        return cls(state.get("scored_by", "loss"), state["best"])
