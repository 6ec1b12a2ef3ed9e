"""Saves what rewards remember with an explorer's checkpoints, and restores it with them.

A reward that learns or counts saves its state at intervals; a killed explorer resumes from its last checkpoint, which
is older. Play that is then repeated must not be learned from, or counted, twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.service import RewardService, save_memory
from genie_ray.storage.paths import StoredPath, found
from genie_ray.storage.whole import remove

if TYPE_CHECKING:
    from genie_ray.base.metrics_log import MetricsLog

KEY = "reward_memory"


class RewardMemory:
    """Companion (`playing.agents.Companion`) of a training whose reward service remembers play."""

    def __init__(self, service: RewardService) -> None:
        assert service.state is not None
        self._service, self._directory = service, service.state

    def after_iteration(self, algorithm: Any, iteration: int, log: MetricsLog) -> Mapping[str, float]:
        return {}

    def get_state(self) -> dict[str, Any]:
        """The contents of the service's state files, by file name."""
        save_memory(self._service.app_name, self._service.config)
        return {KEY: {path.name: path.read_bytes() for path in found(self._directory, "*.pt")}}

    def set_state(self, state: dict[str, Any]) -> None:
        """Does nothing: `restore` has done it before the service started."""


def restore(directory: StoredPath, companions: Sequence[Mapping[str, Any]], config: RewardConfig) -> None:
    """Resets a service's state to an explorer's last checkpoint, before the service starts.

    Args:
        directory: where the service keeps its state; its present content is deleted.
        companions: `playing.agents.saved_companions` of the explorer; empty if it starts from scratch.
        config: the service's; state that depends only on the world model's version (learning progress) is kept.
    """
    if not config.remembers:
        return
    remove(directory)
    for files in (state[KEY] for state in companions if KEY in state):
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / name).write_bytes(content)
