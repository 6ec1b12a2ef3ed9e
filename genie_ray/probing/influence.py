"""How much of what changes on the screen the player's actions decide.

A world model can obey its actions only as far as the game does. From the same state, the emulator plays on twice, with
other actions. Half of the mean squared difference between the two frames is the variance that the actions cause. The
mean squared difference from the state's own frame is all that changed. Their quotient is between 0 and 1 on average;
over few states it may exceed 1.

Axes: S states, L steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie_ray.envs.config import EnvConfig
from genie_ray.envs.game import make_game
from genie_ray.envs.procgen import ProcgenEnv
from genie_ray.envs.retro import RetroEnv
from genie_ray.games.actions import action_names
from genie_ray.games.roms import add_integrations
from genie_ray.probing.run import play_each

Game = RetroEnv | ProcgenEnv

EVERY = 12  # steps of random play between two states
SETTLED = 48  # steps of an episode before its first state
LONGEST_START = 200  # steps after which a game's start counts as one that never listens
ANSWER = 3  # steps within which an action shows


@dataclass(frozen=True, kw_only=True)
class Influence:
    """What the actions of a game decide. Differences are mean squared, of pixels in [0, 1]."""

    game: str
    states: int
    caused: tuple[float, ...]  # by the actions, 1..L steps after a state
    changed: tuple[float, ...]  # in all, 1..L steps after it
    distinct: float  # different frames that follow a state in one step, mean over states; at most the number of actions
    dead_start: int | None  # steps of an episode, at first, in which no action shows; None: none ever did

    @property
    def shares(self) -> tuple[float, ...]:
        """Caused ÷ changed, 1..L steps after a state; 0 where nothing changed."""
        return tuple(
            caused / changed if changed else 0.0 for caused, changed in zip(self.caused, self.changed, strict=True)
        )


def measure_games(
    games: Sequence[str], env: EnvConfig, *, states: int, steps: int, seed: int, workers: int
) -> Iterator[Influence]:
    """Measures several games at once; yields each as soon as it is done.

    Raises:
        ValueError: an unknown game, a missing ROM, or a number that is not positive.
        RuntimeError: a process died, for example in an emulator crash.
    """
    for name, value in (("states", states), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name} is {value}: must be at least 1")
    if env.max_episode_steps < SETTLED + EVERY:
        raise ValueError(f"env.max_episode_steps is {env.max_episode_steps}: must be at least {SETTLED + EVERY}")
    add_integrations(env.integrations)

    def start(pool: ProcessPoolExecutor, game: str) -> Future[Influence]:
        return pool.submit(measure, game, env, states=states, steps=steps, seed=seed)

    return (found for _, found in play_each(games, start, title="measure games", workers=workers))


def measure(game: str, config: EnvConfig, *, states: int, steps: int, seed: int) -> Influence:
    """Plays a game at random, and from each of some states goes on in several ways.

    Raises:
        ValueError: an unknown game, a missing ROM, or episodes too short to measure.
    """
    rng, actions = np.random.default_rng(seed), len(action_names(config.action_set))
    caused_SL, changed_SL, distinct_S = [], [], []
    with closing(make_game(game, config)) as env:
        dead = _dead_start(env, actions)
        for before in _states(game, env, actions, states, rng):
            state = env.get_state()
            ways = [_play(env, state, rng.integers(actions, size=steps)) for _ in range(2)]
            next_frames = {_play(env, state, np.array([action]))[0].tobytes() for action in range(actions)}
            env.set_state(state)  # type: ignore[arg-type]  # of the same environment
            caused_SL.append(_distances(ways[0], ways[1]) / 2)
            changed_SL.append((_distances(ways[0], before) + _distances(ways[1], before)) / 2)
            distinct_S.append(len(next_frames))
    return Influence(
        game=game,
        states=len(distinct_S),
        caused=tuple(np.mean(caused_SL, axis=0).tolist()),
        changed=tuple(np.mean(changed_SL, axis=0).tolist()),
        distinct=float(np.mean(distinct_S)),
        dead_start=dead,
    )


def _states(game: str, env: Game, actions: int, count: int, rng: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    """Plays on at random and stops at `count` states; yields the frame of each. Its state must be restored."""
    found, step = 0, 0
    env.reset(seed=0)
    for _ in range(10 * (SETTLED + count * EVERY)):
        frame, _, terminated, truncated, _ = env.step(int(rng.integers(actions)))
        step += 1
        if terminated or truncated:
            env.reset()
            step = 0
        elif step >= SETTLED and step % EVERY == 0:
            yield frame
            found += 1
            if found == count:
                return
    raise ValueError(f"{game}: its episodes end too soon; most have to last {SETTLED + EVERY} steps of random play")


def _play(env: Game, state: Any, actions_L: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The frames [L, H, W, C] that actions lead to from a state. After the end of a game its last frame stays."""
    env.set_state(state)
    frames: list[NDArray[np.uint8]] = []
    over = False
    for action in actions_L.tolist():
        if over:
            frames.append(frames[-1])
            continue
        frame, _, terminated, truncated, _ = env.step(action)
        frames.append(frame)
        over = terminated or truncated
    return np.stack(frames)


def _distances(frames_LHWC: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean squared differences [L], of pixels in [0, 1]."""
    return np.square((frames_LHWC.astype(np.float64) - others) / 255).mean(axis=(1, 2, 3))


def _dead_start(env: Game, actions: int) -> int | None:
    """Steps at an episode's start from which all actions, held for `ANSWER` steps, lead to the same frames."""
    env.reset(seed=0)
    for step in range(LONGEST_START):
        state = env.get_state()
        ways = {_play(env, state, np.full(ANSWER, action)).tobytes() for action in range(actions)}
        if len(ways) > 1:
            return step
        env.set_state(state)  # type: ignore[arg-type]  # as above
        _, _, terminated, truncated, _ = env.step(0)
        if terminated or truncated:
            return None
    return None
