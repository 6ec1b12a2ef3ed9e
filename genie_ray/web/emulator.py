"""The game itself beside the world model, in a process of its own: Stable-Retro allows one emulator per process."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from genie_ray.base.errors import one_line
from genie_ray.envs.config import EnvConfig

ANSWER_S = 60.0  # for a reset and thousands of replayed steps


class GameFrame(NamedTuple):
    """What the game shows."""

    frame_HWC: NDArray[np.uint8]
    reward: float  # of the last action
    terminated: bool  # the game is over
    ended: bool  # a further action would do nothing: the game is over, or a limit of steps is reached
    info: dict[str, Any]  # the emulator's variables


class Emulator:
    """A game in another process.

    Args:
        game: its id.
        config: of its environment, as the dataset was recorded.
    """

    def __init__(self, game: str, config: EnvConfig) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, game, config), daemon=True)
        self._process.start()
        theirs.close()

    def start(self, actions: Sequence[int], *, level: int | None = None) -> GameFrame:
        """The game after these actions from its start; CoinRun's start is a level.

        Raises:
            RuntimeError: the game does not start, or its process is gone.
        """
        return self._ask("start", list(map(int, actions)), level)

    def step(self, action: int) -> GameFrame:
        """The next frame; once the game has ended, the last one again.

        Raises:
            RuntimeError: the emulator broke.
        """
        return self._ask("step", int(action))

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.join()
        self._pipe.close()

    def _ask(self, *request: Any) -> GameFrame:
        try:
            self._pipe.send(request)
            if not self._pipe.poll(ANSWER_S):
                raise RuntimeError(f"the emulator has not answered for {ANSWER_S:g} s")
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError("the emulator's process is gone") from error
        if isinstance(answer, str):
            raise RuntimeError(answer)
        return GameFrame(*answer)


def _serve(pipe: Connection, game: str, config: EnvConfig) -> None:
    """Runs in the process: answers requests until the other end is closed."""
    from genie_ray.envs.game import make_game

    env, shown = None, GameFrame(np.zeros(0, np.uint8), 0.0, False, False, {})
    while True:
        try:
            name, *arguments = pipe.recv()
        except EOFError:
            return
        try:
            env = env or make_game(game, config)
            if name == "start":
                actions, level = arguments
                frame, info = env.reset(options=None if level is None else {"level": level})
                shown = GameFrame(frame, 0.0, False, False, info)
            else:
                actions = arguments
            for action in actions:
                if not shown.ended:
                    frame, reward, terminated, truncated, info = env.step(action)
                    shown = GameFrame(frame, float(reward), bool(terminated), bool(terminated or truncated), info)
            pipe.send(tuple(shown))
        except Exception as error:  # whatever the emulator raises is told
            pipe.send(one_line(error))
