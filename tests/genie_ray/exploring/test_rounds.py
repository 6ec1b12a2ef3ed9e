"""When rounds start and take over. What they learn is in test_explore.py."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from genie_ray.exploring.config import ExplorationConfig, ExplorersConfig, RoundsConfig
from genie_ray.exploring.rounds import Rounds
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.training.config import TrainingConfig


@ray.remote(num_cpus=0)
def learn(epoch: int, seconds: float) -> int:
    time.sleep(seconds)
    return epoch


def run(*, wait: bool) -> ExplorersConfig:
    return ExplorersConfig(exploration=ExplorationConfig(epochs=12, rounds=RoundsConfig(every=3, wait=wait)))


class Schedule(Rounds):
    """Rounds that take a given time to learn nothing, and record what happens when."""

    def __init__(self, directory: Path, seconds: float, *, wait: bool = False) -> None:
        super().__init__(directory, run(wait=wait), directory, None, play=directory)  # type: ignore[arg-type]
        self.seconds = seconds
        self.events: list[tuple[str, int]] = []

    def _train(self, epoch: int) -> None:
        self.events.append(("begins", epoch))
        self._training = learn.remote(epoch, self.seconds)

    def _swap(self, checkpoint: Any) -> None:
        self.events.append(("judges", checkpoint))


@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_the_judge_is_never_more_than_one_round_behind(ray_session: None, tmp_path: Path, seconds: float) -> None:
    rounds = Schedule(tmp_path, seconds)
    for epoch in range(1, 13):  # far shorter than a round's training, in the second case
        rounds.after_iteration(None, epoch, None)  # type: ignore[arg-type]
        if not seconds:
            time.sleep(0.3)
    rounds.finish()
    rounds.close()
    # No round starts at the end: nothing would be played under it.
    one = [("begins", "judges")] * 3
    expected = [(event, epoch) for events, epoch in zip(one, (3, 6, 9), strict=True) for event in events]
    assert rounds.events == expected


def test_an_agent_that_waits_is_judged_by_each_rounds_model_at_once(ray_session: None, tmp_path: Path) -> None:
    rounds, judges = Schedule(tmp_path, 0.5, wait=True), []
    for epoch in range(1, 13):
        rounds.after_iteration(None, epoch, None)  # type: ignore[arg-type]
        judges.append(rounds.events[-1][1] if rounds.events and rounds.events[-1][0] == "judges" else 0)
    rounds.close()
    assert judges == [0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9, 9]


@pytest.mark.slow
def test_a_cancelled_round_gives_its_room_back(
    ray_session: None, world_model: Path, replay: ReplayDataset, tmp_path: Path
) -> None:
    long = TrainingConfig(
        iterations=100_000, batch_size=2, window=6, warmup_iterations=0, log_every=1, validation_windows=2
    )
    exploration = ExplorationConfig(epochs=12, rounds=RoundsConfig(every=3, wait=False, training=long))
    total = ray.cluster_resources()["CPU"]
    rounds = Rounds(tmp_path, ExplorersConfig(exploration=exploration), world_model, None, play=replay.root)  # type: ignore[arg-type]
    rounds.after_iteration(None, 3, None)  # type: ignore[arg-type]
    wait_until(lambda: (tmp_path / "rounds" / "epoch-000003" / "metrics.jsonl").exists())
    wait_until(lambda: ray.available_resources().get("CPU") == total - 1)
    rounds.close()
    wait_until(lambda: ray.available_resources().get("CPU") == total)


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 90
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.2)
