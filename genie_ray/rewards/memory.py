"""What rewards remember goes along with an explorer's training: saved with its checkpoints, given back with them.

A reward that learns or counts saves its state now and then; an explorer that was killed goes on from its last
checkpoint, which is older. Play that is then repeated must not be learned from, or counted, twice.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.service import RewardService, save_memory

if TYPE_CHECKING:
    from genie_ray.base.metrics_log import MetricsLog

KEY = "reward_memory"


class RewardMemory:
    """Companion of a training (`playing.agents.Companion`) whose service remembers what it was asked."""

    def __init__(self, service: RewardService) -> None:
        assert service.state is not None
        self._service, self._directory = service, Path(service.state)

    def after_iteration(self, algorithm: Any, iteration: int, log: MetricsLog) -> Mapping[str, float]:
        return {}

    def get_state(self) -> dict[str, Any]:
        """The files that the service writes, by their names."""
        save_memory(self._service.app_name, self._service.config)
        return {KEY: {path.name: path.read_bytes() for path in sorted(self._directory.glob("*.pt"))}}

    def set_state(self, state: dict[str, Any]) -> None:
        """Nothing: `restore` did that, before the service was started."""


def restore(directory: Path, companions: Sequence[Mapping[str, Any]], config: RewardConfig) -> None:
    """Gives a service that is about to start what it remembered at an explorer's last checkpoint.

    Args:
        directory: where the service keeps its state; what else is there is forgotten.
        companions: `playing.agents.saved_companions` of the explorer; none if it begins anew.
        config: the service's; what only depends on the world model's version (learning progress) stays as it is.
    """
    if not config.remembers:
        return
    shutil.rmtree(directory, ignore_errors=True)
    for files in (state[KEY] for state in companions if KEY in state):
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / name).write_bytes(content)
