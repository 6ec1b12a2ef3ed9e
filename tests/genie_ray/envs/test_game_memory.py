"""What the table of memory says, against the games themselves: players that move, starts that do not listen."""

from contextlib import closing
from typing import Any

import numpy as np
import pytest
import stable_retro

from genie_ray.base.frames import fit_frame
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.retro import RetroEnv
from genie_ray.games.memory import GAMES, GameMemory, memory_of
from genie_ray.games.roms import INTEGRATIONS

pytestmark = pytest.mark.usefixtures("roms")
RIGHT, LEFT, UP, DOWN, JUMP, NOOP = range(6)
CONFIG = EnvConfig(action_set="paper_noop", skip_start=True)
WAIT = {"PrivateEye": 20}  # steps of walking right that start the game's clock
FOLLOWS = [game for game, row in GAMES.items() if "x" in row.addresses]


def held(env: RetroEnv, state: Any, action: int, steps: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Frames and infos under one action from a state."""
    env.set_state(state)
    played = [env.step(action) for _ in range(steps)]
    return np.stack([step[0] for step in played]), [step[4] for step in played]


@pytest.mark.parametrize("game", FOLLOWS)
def test_x_and_y_follow_the_player(game: str) -> None:
    with closing(RetroEnv(game, CONFIG)) as env:
        _, first = env.reset()
        assert memory_of(game).addresses.keys() <= first.keys()
        for _ in range(WAIT.get(game.partition("-")[0], 0)):
            env.step(RIGHT)
        state = env.get_state()
        ways = {action: held(env, state, action, 20)[1] for action in (RIGHT, LEFT, UP, DOWN, JUMP)}
    at = {action: np.array([info["x"] for info in infos]) for action, infos in ways.items()}
    assert at[RIGHT][:7].max() > at[LEFT][:7].min() + 4
    if "y" in first:
        heights = {action: {info["y"] for info in infos} for action, infos in ways.items()}
        assert max(len(heights[action]) for action in (UP, DOWN, JUMP)) > 2
    assert all(type(value) is int for info in ways[RIGHT] for value in info.values())


def test_a_step_of_kangaroo_is_as_many_pixels_as_its_x_tells() -> None:
    """The picture's right edge of what differs from standing still moves with x, and its top with y."""
    with closing(RetroEnv("Kangaroo-Atari2600", CONFIG, native_frame_every=1)) as env:
        env.reset()
        state = env.get_state()
        still = [info["native_frame"] for info in held(env, state, NOOP, 20)[1]]
        edges, places = [], []
        for step, info in enumerate(held(env, state, RIGHT, 20)[1]):
            columns = np.flatnonzero((info["native_frame"] != still[step]).any(axis=(0, 2)))
            edges.append(columns.max(initial=0))
            places.append(info["x"])
    moved = np.array(edges)[8:] - edges[8]
    assert np.abs(moved - (np.array(places)[8:] - places[8])).max() <= 1


def test_variables_of_an_integration_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """James Bond's integration knows its screen, Kangaroo's its lives: the table does not replace them."""
    with closing(RetroEnv("Jamesbond-Atari2600", CONFIG)) as env:
        assert {"screen", "x", "y", "lives"} <= env.reset()[1].keys()
    lives = GameMemory(addresses={"lives": 145}, pixels={"lives": 8})
    monkeypatch.setitem(GAMES, "Kangaroo-Atari2600", lives)
    with closing(RetroEnv("Kangaroo-Atari2600", CONFIG)) as env:
        assert env.reset()[1] == {"lives": 2, "score": 0}


@pytest.mark.parametrize("game", [game for game, row in GAMES.items() if row.dead_start])
def test_a_skipped_start_listens_at_once_and_is_no_step(game: str) -> None:
    differ = {}
    for skip in (False, True):
        with closing(RetroEnv(game, EnvConfig(skip_start=skip, max_episode_steps=10))) as env:
            frame, _ = env.reset()
            state = env.get_state()
            ways = [held(env, state, action, 4)[0] for action in (RIGHT, LEFT, UP, DOWN, JUMP)]
            differ[skip] = any((way != ways[0]).any() for way in ways)
            again, _ = env.reset()
            np.testing.assert_array_equal(again, frame)
            assert [env.step(RIGHT)[3] for _ in range(10)] == [False] * 9 + [True]
    assert differ == {False: False, True: True}


def test_a_skipped_start_is_the_game_with_no_button_held() -> None:
    skip = memory_of("Kangaroo-Atari2600").dead_start
    with closing(RetroEnv("Kangaroo-Atari2600", EnvConfig(skip_start=True))) as env:
        skipped, info = env.reset()
    with closing(RetroEnv("Kangaroo-Atari2600", EnvConfig(action_set="paper_noop"))) as env:
        env.reset()
        played = [env.step(NOOP) for _ in range(skip // 4)]
    np.testing.assert_array_equal(skipped, played[-1][0])
    assert info == played[-1][4]


def test_max2_shows_what_is_drawn_in_every_other_frame() -> None:
    """Asteroids' ship, which a frame skip of 4 never shows; against the emulator itself."""
    actions = np.arange(40) // 10 % 2  # turns right and left
    pictures = {}
    for pool in ("last", "max2"):
        with closing(RetroEnv("Asteroids-Atari2600", EnvConfig(pool=pool))) as env:
            env.reset()
            pictures[pool] = np.stack([env.step(action)[0] for action in actions])
            buttons = env.button_table
    emulator = stable_retro.RetroEnv(
        "Asteroids-Atari2600-v0",
        inttype=INTEGRATIONS,
        use_restricted_actions=stable_retro.Actions.ALL,
        render_mode=None,
    )
    with closing(emulator):
        emulator.reset()
        ways = {"last": [], "max2": []}
        for action in actions:
            screens = [emulator.step(buttons[action])[0] for _ in range(4)]
            ways["last"].append(fit_frame(screens[3], 64, "pad"))
            ways["max2"].append(fit_frame(np.maximum(screens[2], screens[3]), 64, "pad"))
    for pool, frames in ways.items():
        np.testing.assert_array_equal(pictures[pool], np.stack(frames))
    assert (pictures["max2"] != pictures["last"]).any(axis=(1, 2, 3)).mean() > 0.9
    with pytest.raises(ValueError, match="pool is 'max2' with frame_skip 1: must be at least 2"):
        EnvConfig(pool="max2", frame_skip=1)
    with pytest.raises(ValueError, match="pool is 'max4': must be 'last' or 'max2'"):
        EnvConfig(pool="max4")  # type: ignore[arg-type]
