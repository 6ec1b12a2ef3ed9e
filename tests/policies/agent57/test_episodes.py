"""How Agent57's runner treats episodes: which ones an evaluation counts, and how random each is."""

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from policies.agent57.module import EPSILON
from tests.policies.agent57.small_agent import config, settings
from tests.policies.toys import ShowsAction

pytestmark = pytest.mark.usefixtures("ray_session")


class Uneven(ShowsAction):
    """Of every two environments one has episodes of 7 steps, the other of 250; each step pays 1."""

    numbers = itertools.count()

    def __init__(self, config: dict[str, Any]) -> None:
        length = 250 if next(self.numbers) % 2 else 7
        super().__init__(config | {"length": length, "game_reward": 1.0, "terminates": True})


class FailsOnce(gym.Wrapper[np.ndarray, np.int64, np.ndarray, np.int64]):
    """The third environment to be made fails in its fourth step."""

    numbers = itertools.count()
    failed = False

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(ShowsAction(config))
        self.left = 4 if next(self.numbers) == 2 else 10**9

    def step(self, action: np.int64) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        self.left -= 1
        if not self.left:
            FailsOnce.failed = True
            raise RuntimeError("this emulator breaks")
        return super().step(action)


def test_an_evaluation_counts_each_environments_first_episode() -> None:
    """The first four to end would all be short ones, so their mean return would be 7, not 128.5."""
    algorithm = config(settings(), make=Uneven).build_algo()
    played = algorithm.env_runner.evaluate(epsilon=0.1)
    again = algorithm.env_runner.evaluate(epsilon=0.1)
    algorithm.stop()
    for fragment in (played, again):
        returns = [episode.value for episode in fragment.finished]
        assert sorted(returns) == [7, 7, 250, 250]
        assert [episode.slot for episode in fragment.finished] == [0, 1, 2, 3]
        steps: dict[str, int] = {}
        for play in fragment.plays:
            assert play.first == steps.get(play.episode, 0)  # pieces of an episode follow each other
            steps[play.episode] = play.first + len(play)
        assert list(steps.values()) == returns
    assert not {play.episode for play in played.plays} & {play.episode for play in again.plays}


def test_an_evaluation_survives_an_environment_that_fails() -> None:
    algorithm = config(settings(), make=FailsOnce, length=9, game_reward=2.0).build_algo()
    played = algorithm.env_runner.evaluate(epsilon=0.1)
    algorithm.stop()
    assert FailsOnce.failed
    assert [episode.value for episode in played.finished] == [18.0] * 4
    assert len({play.episode for play in played.plays}) == 4
    assert played.steps == 36


def test_running_episodes_become_less_random_while_the_agent_warms_up() -> None:
    made = settings(play={"warm_up_steps": 400, "epsilon": 0.1, "alpha": 0.0})
    algorithm = config(made, iteration=40, length=1000).build_algo()
    seen = []
    for _ in range(12):
        algorithm.train()
        seen.append([episode.custom_data[EPSILON] for episode in algorithm.env_runner._ongoing_episodes])
    algorithm.stop()
    assert len({tuple(values) for values in np.transpose(seen)}) == 1  # alike in all environments
    by_iteration = [values[0] for values in seen]
    assert by_iteration == sorted(by_iteration, reverse=True)
    assert by_iteration[0] > 0.8
    assert by_iteration[5] == pytest.approx(1 - 0.9 * 200 / 400, abs=0.1)
    assert by_iteration[-1] == pytest.approx(0.1)
