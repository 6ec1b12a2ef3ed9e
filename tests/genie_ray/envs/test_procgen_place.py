"""CoinRun's player in `info`: it moves as its actions say, cell by cell, and its position ends with the level."""

from contextlib import closing
from typing import Any

import numpy as np
import pytest

from genie_ray.envs.config import EnvConfig
from genie_ray.envs.procgen import ProcgenEnv
from genie_ray.envs.procgen_state import SIDE, UNITS
from genie_ray.replay.coverage import PLACE_SIZE, place_of

pytestmark = pytest.mark.usefixtures("procgen")
RIGHT, LEFT, UP, DOWN, JUMP = range(5)


def infos(actions: list[int], level: int, mode: Any = "hard") -> list[dict[str, Any]]:
    """Of each tick of a level, until it ends."""
    with closing(ProcgenEnv("CoinRun", EnvConfig(frame_skip=1, coinrun_mode=mode))) as env:
        found = [env.reset(options={"level": level})[1]]
        for action in actions:
            *_, terminated, truncated, info = env.step(action)
            found.append(info)
            if terminated or truncated:
                break
    return found


def test_right_left_and_jump_move_the_player() -> None:
    """In level 3, whose floor is free for the first ten cells."""
    walk = infos([RIGHT] * 8 + [LEFT] * 12, level=3)
    x = [info["x"] for info in walk]
    assert x[:9] == sorted(x[:9])
    assert x[8] > x[0] + UNITS
    assert x[-1] < x[9]
    assert {info["y"] for info in walk} == {walk[0]["y"]}
    y = [info["y"] for info in infos([JUMP] + [UP] * 3 + [DOWN] * 30, level=3)]
    assert max(y) > y[0] + 3 * UNITS  # a jump is several cells high
    assert y[-1] == y[0]


@pytest.mark.parametrize("mode", ["easy", "hard"])
def test_every_level_starts_at_the_left_and_ends_at_its_coin(mode: str) -> None:
    rng = np.random.default_rng(0)
    reached = 0
    for level in range(12):
        actions = rng.choice([RIGHT, RIGHT, JUMP, UP], size=300).tolist()
        played = infos(actions, level, mode)
        assert played[0]["x"] == 1.5 * UNITS
        assert all(UNITS <= info["x"] <= (SIDE - 1) * UNITS and 0 < info["y"] < SIDE * UNITS for info in played)
        assert all(0 <= info["progress"] <= 1.1 for info in played)
        if played[-1]["level_complete"]:
            reached += 1
            assert played[-1]["progress"] > 0.9  # of the tick before the coin was touched
    assert reached or mode == "hard"


def test_a_place_is_a_cell_of_the_level() -> None:
    assert UNITS == PLACE_SIZE
    walk = infos([RIGHT] * 8, level=3)
    assert {place_of(info) for info in walk} == {(x, 1, 3) for x in range(1, walk[-1]["x"] // UNITS + 1)}


def test_a_state_remembers_the_place() -> None:
    with closing(ProcgenEnv("CoinRun", EnvConfig(frame_skip=1))) as env:
        env.reset(options={"level": 3})
        for _ in range(5):
            info = env.step(RIGHT)[4]
        state = env.get_state()
        following = env.step(RIGHT)[4]
        for _ in range(3):
            env.step(LEFT)
        env.set_state(state)
        assert env.step(RIGHT)[4] == following
        assert following["x"] > info["x"]
