"""When rounds start and take over, and which play they store. What they learn is in test_explore.py."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from genie_ray.exploring.config import ExplorationConfig, ExplorersConfig, RoundsConfig
from genie_ray.exploring.rounds import Rounds
from genie_ray.replay.dataset import ReplayDataset

NOTHING_PLAYED: Any = SimpleNamespace(arrived=[])


@ray.remote(num_cpus=0)
def learn(epoch: int, seconds: float) -> int:
    time.sleep(seconds)
    return epoch


RUN = ExplorersConfig(exploration=ExplorationConfig(epochs=12, rounds=RoundsConfig(every=3)))


class Schedule(Rounds):
    """Rounds that take a given time to learn nothing, and record what happens when."""

    def __init__(self, directory: Path, seconds: float) -> None:
        super().__init__(directory, RUN, directory, None, game="Kangaroo")  # type: ignore[arg-type]
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
    for epoch in range(1, 13):  # far shorter than a round's training, in the second case
        rounds.after_iteration(NOTHING_PLAYED, epoch, None)  # type: ignore[arg-type]
        if not seconds:
            time.sleep(0.3)
    rounds.finish()
    rounds.close()
    # No round starts at the end: nothing would be played under it.
    one = [("stored", "begins", "judges")] * 3
    expected = [(event, epoch) for events, epoch in zip(one, (3, 6, 9), strict=True) for event in events]
    assert rounds.events == expected


def begun(name: str, t_started: int = 0) -> SingleAgentEpisode:
    return SingleAgentEpisode(
        id_=name, observations=[frame(name, t_started)], t_started=t_started, len_lookback_buffer=0
    )


def frame(name: str, step: int) -> np.ndarray:
    """A frame that encodes its episode and step."""
    return np.full((64, 64, 3), [ord(name), step, 0], np.uint8)


def grow(episode: SingleAgentEpisode, steps: int) -> None:
    for _ in range(steps):
        shown = frame(episode.id_, episode.t + 1)
        logp = {Columns.ACTION_LOGP: -1.0}
        episode.add_env_step(shown, np.int64(episode.t % 5), 0.5, extra_model_outputs=logp)


def test_each_step_is_stored_once(tmp_path: Path) -> None:
    def rounds() -> Rounds:
        return Rounds(tmp_path, RUN, tmp_path, None, game="Kangaroo")  # type: ignore[arg-type]

    def store(by: Rounds, epoch: int, *played: SingleAgentEpisode) -> None:
        by._export(epoch, SimpleNamespace(replay=SimpleNamespace(episodes=played)))  # type: ignore[arg-type]

    first, a, b, c = rounds(), begun("a"), begun("b"), begun("c", t_started=40)
    grow(a, 10)
    grow(b, 6)
    store(first, 3, a, b)
    grow(a, 15)
    grow(c, 5)  # its beginning was forgotten
    store(first, 6, a, b, c)
    store(first, 6, a, b, c)  # again, after a crash
    first.close()
    grow(a, 5)
    resumed = rounds()
    store(resumed, 9, a, c)
    resumed.close()

    dataset = ReplayDataset(tmp_path / "rounds" / "dataset")
    stored = sorted((dataset.read(reference) for reference in dataset.episodes), key=lambda piece: piece.episode_id)
    assert [len(piece.actions) for piece in stored] == [10, 15, 5, 6, 5]
    shown = [piece.frames[:, 0, 0, :2].tolist() for piece in stored]
    spans = [("a", 0, 10), ("a", 10, 25), ("a", 25, 30), ("b", 0, 6), ("c", 40, 45)]
    assert shown == [[[ord(name), step] for step in range(begin, end + 1)] for name, begin, end in spans]
    for piece, (_, begin, end) in zip(stored, spans, strict=True):
        assert piece.actions.tolist() == [step % 5 for step in range(begin, end)]
