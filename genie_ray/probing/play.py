"""Playing a game so that two rollouts differ only in the action.

A *context* is a way into the game: a lead-in of actions from the start state. Every action, and no-op, is held from the
end of the same lead-in. A game draws no random numbers, so replaying the lead-in restores the emulator's state exactly;
the action causes any difference from no-op after that.

Axes: T frames of a rollout, the first one before the action is held; H W C pixels, the console's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie_ray.envs.config import EnvConfig
from genie_ray.envs.retro import RetroEnv
from genie_ray.games.actions import action_names
from genie_ray.probing.config import ProbeConfig

NOOP = "NOOP"
FRAME_SKIP = 5  # emulator frames per step, 1/12 s; odd, or what a game draws in every other frame is never seen
SHORTEST_LEAD_IN = 12  # steps
LEAD_IN_GROWTH = 16  # more steps in each context than in the last, so that no single enemy or wall decides
IDLE_CONTEXTS = 2  # contexts that begin by waiting; the others begin with random actions
HELD = 6  # steps for which a random action of a lead-in is held
SETTLE = 6  # steps of no-op at the end of a lead-in, so that a jump has landed


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """An action held in a context. A game that ends early has fewer frames."""

    action: str
    frames: NDArray[np.uint8]  # [T, H, W, C]
    infos: list[dict[str, Any]]  # T; the emulator's variables


Context = dict[str, Rollout]
"""The rollouts of one context by action, including no-op."""


def probed_actions(config: ProbeConfig) -> list[str]:
    """The actions of the set that are compared with no-op."""
    return [action for action in action_names(config.action_set) if action != NOOP]


def play_contexts(game: str, config: ProbeConfig) -> Iterator[Context]:
    """Plays every action, and no-op, in each context. Skips contexts whose lead-in ends the game.

    Raises:
        ValueError: unknown game, missing ROM, or a button that the console lacks.
    """
    probed = probed_actions(config)
    presses = [press.strip() for press in config.before.split(",") if press.strip()]
    names = list(dict.fromkeys([*probed, NOOP, *presses]))
    longest = SHORTEST_LEAD_IN + LEAD_IN_GROWTH * config.contexts + SETTLE + 8 * len(presses) + config.steps
    env_config = EnvConfig(
        action_set=",".join(names),
        frame_skip=FRAME_SKIP,
        max_episode_steps=longest + 1,
        integrations=config.integrations,
    )
    env = RetroEnv(game, env_config, native_frame_every=1)
    start = [action for press in presses for action in [press] * 4 + [NOOP] * 4]
    rng = np.random.default_rng(config.seed)
    with closing(env):
        for index in range(config.contexts):
            length = SHORTEST_LEAD_IN + LEAD_IN_GROWTH * index
            chosen = rng.choice(probed, -(-length // HELD)) if index >= IDLE_CONTEXTS else [NOOP] * length
            lead_in = [*start, *np.repeat(chosen, HELD)[:length], *[NOOP] * SETTLE]
            indices = [names.index(action) for action in lead_in]
            rolled_out = (
                _roll_out(env, indices, names.index(action), action, config.steps) for action in (NOOP, *probed)
            )
            if context := {rollout.action: rollout for rollout in rolled_out if rollout is not None}:
                yield context


def _roll_out(env: RetroEnv, lead_in: list[int], held: int, action: str, steps: int) -> Rollout | None:
    """Replays the lead-in, then holds an action; None where the lead-in ends the game."""
    _, info = env.reset()
    for index in lead_in:
        _, _, terminated, _, info = env.step(index)
        if terminated:
            return None
    frames, infos = [info.pop("native_frame")], [info]
    for _ in range(steps):
        _, _, terminated, _, info = env.step(held)
        frames.append(info.pop("native_frame"))
        infos.append(info)
        if terminated:
            break
    return Rollout(action=action, frames=np.stack(frames), infos=infos)
