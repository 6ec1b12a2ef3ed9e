"""When rounds begin and take over. What they learn is in test_explore.py."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from genie_ray.envs.retro import EnvConfig
from genie_ray.rounds import Rounds, RoundsConfig
from genie_ray.session import RayConfig

NOTHING_PLAYED: Any = SimpleNamespace(arrived=[])


@ray.remote(num_cpus=0)
def learn(epoch: int, seconds: float) -> int:
    time.sleep(seconds)
    return epoch


class Schedule(Rounds):
    """Rounds that learn nothing, in a given time, and note what happens when."""

    def __init__(self, directory: Path, seconds: float) -> None:
        super().__init__(
            directory,
            RoundsConfig(every=3),
            directory,
            None,  # type: ignore[arg-type]
            epochs=12,
            game="Kangaroo",
            env=EnvConfig(),
            ray=RayConfig(),
            seed=0,
        )
        self.seconds = seconds
        self.events: list[tuple[str, int]] = []

    def _export(self, epoch: int, algorithm: Any) -> None:
        self.events.append(("stored", epoch))

    def _train(self, epoch: int) -> None:
        self.events.append(("begins", epoch))
        self._training = learn.remote(epoch, self.seconds)

    def _swap(self, checkpoint: Any) -> None:
        self.events.append(("judges", checkpoint))


@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_the_judge_is_never_more_than_one_round_behind(ray_session: None, tmp_path: Path, seconds: float) -> None:
    rounds = Schedule(tmp_path, seconds)
    for epoch in range(1, 13):  # far shorter than a round's learning, in the second case
        rounds.after_iteration(NOTHING_PLAYED, epoch, None)  # type: ignore[arg-type]
        if not seconds:
            time.sleep(0.3)
    rounds.finish()
    rounds.close()
    # No round begins at the end: nothing would be played under it.
    one = [("stored", "begins", "judges")] * 3
    expected = [(event, epoch) for events, epoch in zip(one, (3, 6, 9), strict=True) for event in events]
    assert rounds.events == expected
