"""Emulators across their seams: back to an earlier state, reset after reset, a failed start, a fork, a vector of them.

Other processes play the same actions after other play, so that nothing that was played before can be part of a frame.
"""

import hashlib
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_retro
from gymnasium.utils.env_checker import check_env

from genie_ray.envs.config import EnvConfig
from genie_ray.envs.games_in_turn import GamesInTurn
from genie_ray.envs.retro import RetroEnv
from genie_ray.games.memory import memory_of
from policies.play.held import HeldEnv

KANGAROO, HERO = "Kangaroo-Atari2600-v0", "Hero-Atari2600-v0"
PARTIAL = ["MontezumaRevenge-Atari2600-v0", "Jamesbond-Atari2600-v0", "Pong-Atari2600-v0"]
AHEAD = 30  # steps that are played twice
pytestmark = pytest.mark.usefixtures("roms")


def go_on(env: gym.Env, actions: np.ndarray) -> str:
    """Plays the actions until the episode ends; returns a digest of all that was seen."""
    seen = hashlib.sha256()
    for action in actions:
        frame, reward, terminated, truncated, info = env.step(action)
        seen.update(frame.tobytes() + repr((float(reward), terminated, truncated, sorted(info.items()))).encode())
        if terminated or truncated:
            break
    return seen.hexdigest()


def differences(game: str, states: int) -> list[int]:
    """The states, by number, from which a game goes on differently after it has been set back to them."""
    rng, differ = np.random.default_rng(7), []
    with closing(RetroEnv(game, EnvConfig(max_episode_steps=100_000))) as env:
        for number in range(states):
            if number % 4 == 0:
                env.reset()
            go_on(env, rng.integers(5, size=15).repeat(2))
            ahead, state = rng.integers(5, size=AHEAD), env.get_state()
            undisturbed = go_on(env, ahead)
            env.set_state(state)
            if go_on(env, ahead) != undisturbed:
                differ.append(number)
    return differ


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


@pytest.mark.parametrize("game", [*PARTIAL, KANGAROO])
def test_set_back_a_game_goes_on_as_if_nothing_had_happened(game: str) -> None:
    assert memory_of(game).partial_state == (game in PARTIAL)
    assert differences(game, states=6) == []


@pytest.mark.slow
def test_so_does_every_game_that_comes_with_ale_py(roms: list[str]) -> None:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = dict(zip(roms, pool.map(partial(differences, states=4), roms), strict=True))
    assert {game: states for game, states in found.items() if states} == {}


def test_a_state_that_is_played_again_keeps_the_step_limit() -> None:
    with closing(RetroEnv(PARTIAL[0], EnvConfig(max_episode_steps=20))) as env:
        env.reset()
        go_on(env, np.zeros(12, int))
        state = env.get_state()
        for _ in range(2):
            assert [env.step(0)[3] for _ in range(8)] == [False] * 7 + [True]
            env.set_state(state)


def after_resets(game: str, resets: int) -> str:
    """What the same actions show in a process that has reset the game a number of times, after other play each time."""
    with closing(RetroEnv(game, EnvConfig(max_episode_steps=1_000))) as env:
        for number in range(resets):
            env.reset(seed=number)
            go_on(env, np.random.default_rng((resets, number)).integers(5, size=20))
        frame, _ = env.reset()
        return frame.tobytes().hex()[:64] + go_on(env, np.random.default_rng(1).integers(5, size=100))


@pytest.mark.parametrize("game", PARTIAL)
def test_an_episode_is_the_same_in_every_process_however_many_went_before(game: str) -> None:
    assert apart(after_resets, game, 6) == apart(after_resets, game, 1) == after_resets(game, 6)


def test_a_reset_that_fails_leaves_the_process_free(monkeypatch: pytest.MonkeyPatch) -> None:
    env, build = RetroEnv(KANGAROO), stable_retro.RetroEnv.__init__

    def damaged(self: Any, *arguments: Any, **more: Any) -> None:
        build(self, *arguments, **more)
        self.initial_state = b"of another emulator"

    monkeypatch.setattr(stable_retro.RetroEnv, "__init__", damaged)
    with pytest.raises(RuntimeError, match=r"start state .* of Kangaroo-Atari2600-v0 is damaged") as failed:
        env.reset()
    monkeypatch.undo()
    for other in (RetroEnv(HERO), env):  # while the error, with its stack, is still there
        with closing(other):
            other.reset()
    assert failed.value.__traceback__ is not None


def test_a_fork_plays_on_by_itself() -> None:
    """Linux forks by default (Python 3.13 and older): the child has a copy of the parent's emulator, not the same."""
    actions = np.random.default_rng(0).integers(5, size=40)
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    with closing(RetroEnv(KANGAROO)) as env:
        env.reset()
        go_on(env, actions[:10])

        def child() -> None:
            answers.put(go_on(env, actions))
            env.close()
            with closing(RetroEnv(HERO)) as other:
                other.reset()
                answers.put(go_on(other, actions))

        process = fork.Process(target=child)
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert answers.get() == go_on(env, actions)
    with closing(RetroEnv(HERO)) as other:
        other.reset()
        assert answers.get() == go_on(other, actions)


SHORT = EnvConfig(max_episode_steps=7)
MAKERS: dict[str, Callable[[], gym.Env]] = {
    "one game": partial(RetroEnv, KANGAROO, SHORT),
    "games in turn": partial(GamesInTurn, [KANGAROO, HERO], SHORT),
}


def held(make: Callable[[], gym.Env]) -> gym.Env:
    return HeldEnv(make(), 3)


MAKERS["held actions"] = partial(held, MAKERS["one game"])


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Callable[[], gym.Env]:
    return MAKERS[request.param]


def test_gymnasiums_checker_passes(make: Callable[[], gym.Env]) -> None:
    with closing(make()) as env:
        check_env(env, skip_render_check=True)


def test_a_vector_counts_the_lengths_of_episodes_as_its_environments_do(make: Callable[[], gym.Env]) -> None:
    with closing(make()) as alone:
        alone.reset(seed=0)
        length = 1 + next(step for step in range(100) if any(alone.step(np.int64(0))[2:4]))
    envs = gym.wrappers.vector.RecordEpisodeStatistics(gym.vector.AsyncVectorEnv([make] * 2))
    lengths: list[int] = []
    with closing(envs):
        envs.reset(seed=0)
        for _ in range(3 * (length + 1)):  # a step of its own starts each episode
            *_, info = envs.step(np.zeros(2, np.int64))
            lengths += info["episode"]["l"][info["_episode"]].tolist() if "episode" in info else []
    assert lengths == [length] * 6
