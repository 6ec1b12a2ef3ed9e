"""procgen's 16 games, run for real: a game's actions all act, levels end where they say, states can be gone back to."""

import struct
from contextlib import closing
from itertools import combinations

import numpy as np
import pytest

from genie_ray.envs import procgen_state
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.game import make_game, vectorize_mode
from genie_ray.envs.procgen import NO_SPEED, ProcgenEnv
from genie_ray.games.actions import ACTION_SETS, action_names
from genie_ray.games.procgen import PROCGEN_GAMES
from genie_ray.games.roms import require_rom, resolve_game
from genie_ray.replay.coverage import place_of

pytestmark = pytest.mark.usefixtures("procgen")


def own(game: str, **settings) -> ProcgenEnv:
    """A game with its own actions, every tick a step."""
    return ProcgenEnv(game, EnvConfig(frame_skip=1, action_set=game.lower(), **settings))


@pytest.mark.parametrize("game", PROCGEN_GAMES)
def test_every_action_of_a_games_set_does_something_of_its_own(game: str) -> None:
    """Held for two ticks from the same states, each two actions show different frames in one of them at least."""
    rng, count = np.random.default_rng(0), len(action_names(game.lower()))
    alike = set(combinations(range(count), 2))
    with closing(own(game, max_episode_steps=10_000)) as env:
        env.reset(options={"level": 3})
        for _ in range(400):
            if not alike:
                break
            state = env.get_state()
            shown = []
            for action in range(count):
                env.set_state(state)
                frames = [env.step(held)[0] for held in (action, action, 0, 0)]
                shown.append(np.stack(frames).tobytes())
            alike = {(one, other) for one, other in alike if shown[one] == shown[other]}
            env.set_state(state)
            for _ in range(rng.integers(1, 8)):
                _, _, terminated, truncated, _ = env.step(rng.integers(count))
                if terminated or truncated:
                    env.reset(options={"level": 3})
    assert alike == set()


def test_every_game_has_its_actions_and_its_name() -> None:
    assert len(PROCGEN_GAMES) == 16
    for game in PROCGEN_GAMES:
        assert resolve_game(game) == game
        require_rom(game)
        assert game.lower() in ACTION_SETS
    assert vectorize_mode(["Ninja", "CoinRun"]) == "sync"
    with pytest.raises(ValueError, match=r"unknown game 'ninja': .*nearest: Ninja"):
        resolve_game("ninja")


@pytest.mark.parametrize("mode", ["easy", "hard"])
@pytest.mark.parametrize("game", ["CoinRun", "Ninja", "Leaper"])
def test_who_stands_where_a_level_ends_completes_it(game: str, mode: str) -> None:
    """The player is put there, and a cell and a half before, by writing into procgen's record."""
    for level in range(4):
        ends = {0.0: False, 1.5: False}
        for before in ends:
            with closing(own(game, coinrun_mode=mode)) as env:
                env.reset(options={"level": level})
                assert env._level is not None
                (record,) = env._level.get_state()
                end = procgen_state.end(game, record)
                assert end is not None
                for across in np.arange(0.5, 50):  # the end is at one of these cells of its column or row
                    place = [across, across]
                    place[end.axis] = end.cell - before
                    moved = bytearray(record)
                    struct.pack_into("<2f", moved, procgen_state._episode(record) + 4 * procgen_state.EPISODE, *place)
                    env._level.set_state([bytes(moved)])
                    assert procgen_state.player_cell(bytes(moved)) == tuple(place)
                    ends[before] |= bool(env.step(0)[4]["level_complete"])
        assert ends == {0.0: True, 1.5: False}


@pytest.mark.parametrize("game", ["Ninja", "Leaper"])
def test_a_state_gives_the_same_steps_again(game: str) -> None:
    """Frames, rewards, places and progress; and the same seed another time."""
    rng = np.random.default_rng(1)
    actions = rng.integers(len(action_names(game.lower())), size=60)
    runs = []
    for _ in range(2):
        with closing(own(game)) as env:
            frame, info = env.reset(seed=5)
            runs.append([(frame.tobytes(), info)])
            for number, action in enumerate(actions):
                if number == 20:
                    state = env.get_state()
                    for other in rng.integers(len(action_names(game.lower())), size=9):
                        env.step(other)
                    env.set_state(state)
                frame, *more = env.step(action)
                runs[-1].append((frame.tobytes(), *more))
                if more[1] or more[2]:
                    break
    once, again = runs
    assert once == again
    assert len({place_of(step[-1]) for step in once}) > 3
    assert all(0 <= step[-1]["progress"] <= 1.1 for step in once)


def test_several_in_one_process_do_not_disturb_each_other() -> None:
    """Played in turn, two games and two levels of one show what each shows alone."""
    played = (("Ninja", 3), ("CoinRun", 3), ("Ninja", 4))
    actions = np.random.default_rng(0).integers(6, size=40)

    def frames(which: tuple[tuple[str, int], ...]) -> list[list[bytes]]:
        envs = [own(game) for game, _ in which]
        shown = [
            [env.reset(options={"level": level})[0].tobytes()] for env, (_, level) in zip(envs, which, strict=True)
        ]
        for action in actions:
            for env, seen in zip(envs, shown, strict=True):
                seen.append(env.step(action)[0].tobytes())
        for env in envs:
            env.close()
        return shown

    assert frames(played) == [frames((one,))[0] for one in played]


def test_a_ninja_jumps_the_higher_the_longer_it_is_held_and_throws() -> None:
    """As the game's rules say: a jump is charged by a quarter each tick that UP is held, and starts when it is not."""
    names = action_names("ninja")
    heights = []
    for held in (1, 2, 4):
        with closing(own("Ninja")) as env:
            start = env.reset(options={"level": 3})[1]["y"]
            for _ in range(held):
                env.step(names.index("JUMP"))
            heights.append(max(env.step(0)[4]["y"] for _ in range(20)) - start)
    assert heights[0] < heights[1] < heights[2]
    thrown = {}
    for action in ("NOOP", "D", "W"):
        with closing(own("Ninja")) as env:
            env.reset(options={"level": 3})
            frames = [env.step(names.index(action))[0] for _ in range(7)]  # the first is thrown after three ticks
            thrown[action] = frames[-1].astype(int)
            place = env.step(0)[4]
    rows, columns = np.nonzero((thrown["D"] != thrown["NOOP"]).any(-1))
    rows_up, columns_up = np.nonzero((thrown["W"] != thrown["NOOP"]).any(-1))
    assert np.ptp(columns) > np.ptp(rows)  # to the side
    assert np.ptp(rows_up) > np.ptp(columns_up)  # and up
    assert place["x"] == 1.5 * procgen_state.UNITS  # who throws does not move


@pytest.mark.parametrize("game", ["Ninja", "Jumper", "Leaper", *NO_SPEED])
def test_the_speed_is_painted_where_there_is_one(game: str) -> None:
    if game in NO_SPEED:
        with pytest.raises(ValueError, match=f"paint_vel_info is true: {game} has no speed to paint"):
            make_game(game, EnvConfig(paint_vel_info=True))
        return
    actions = np.random.default_rng(0).integers(len(action_names(game.lower())), size=60)
    played = []
    for paint in (False, True):
        with closing(own(game, paint_vel_info=paint)) as env:
            frames = [env.reset(options={"level": 4})[0]]
            for action in actions:
                frame, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    break
                frames.append(frame)
            played.append(np.stack(frames))
    rows, columns = np.nonzero((played[0] != played[1]).any(axis=(0, 3)))
    assert (rows.max() + 1, columns.max() + 1) == (13, 26)  # evaluation.black_corner


def test_a_leaper_has_half_the_time_of_a_coinrunner() -> None:
    """Its timeout is 500 ticks (procgen's leaper.cpp)."""
    with closing(own("Leaper", max_episode_steps=5_000)) as env:
        env.reset(options={"level": 3})
        steps = [env.step(0) for _ in range(500)]
    assert [step[2:4] for step in steps[-2:]] == [(False, False), (False, True)]


def test_what_procgen_cannot_press_is_refused() -> None:
    with pytest.raises(ValueError, match="action SECOND needs SECOND, which Ninja lacks: it has LEFT, RIGHT, UP"):
        make_game("Ninja", EnvConfig(action_set="NOOP,SECOND"))
    for action in ("RIGHT+D", "LEFT+RIGHT"):
        with pytest.raises(ValueError, match=f"action {action.replace('+', '.')} holds opposite arrows, or a letter"):
            make_game("Ninja", EnvConfig(action_set=f"NOOP,{action}"))
