"""Tiny environments and reward clients with known right answers."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from policies.play.held import HeldEnv
from policies.rewards import WINDOW_ACTIONS, RewardAnswer, RewardUnavailableError

NUM_ACTIONS = 4
SIZE = 16


class ShowsAction(gym.Env[np.ndarray, np.int64]):
    """Its frames show the action that led to them (red, 0 at the start) and the step of the episode (green).

    `env_config`: `length` of an episode, `game_reward` per step, `terminates` (otherwise truncates), `sleep_s` in each
    step, `hangs`: a file; if it is missing, a step creates it and never ends; `damaged`: no episode can start.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.length = config.get("length", 30)
        self.game_reward = config.get("game_reward", 0.0)
        self.terminates = config.get("terminates", False)
        self.sleep_s = config.get("sleep_s", 0.0)
        self.hangs = config.get("hangs")
        self.damaged = config.get("damaged", False)
        self.observation_space = gym.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(NUM_ACTIONS)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        if self.damaged:
            raise RuntimeError("the start state is damaged")
        self.steps = 0
        return self._frame(shown=0), {"score": 0.0}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        time.sleep(self.sleep_s)
        if self.hangs and not Path(self.hangs).exists():
            Path(self.hangs).touch()
            time.sleep(1000)
        over = self.steps >= self.length
        info = {"score": self.game_reward * self.steps}
        return self._frame(shown=int(action) + 1), self.game_reward, over and self.terminates, over, info

    def _frame(self, shown: int) -> np.ndarray:
        frame = np.zeros((SIZE, SIZE, 3), np.uint8)
        frame[..., 0], frame[..., 1] = 50 * shown, self.steps
        return frame


class Ready:
    """Rewards that are available at once."""

    def __init__(self, rewards: list[np.ndarray], version: str = "first") -> None:
        self.rewards, self.version = rewards, version

    def result(self, timeout_s: float) -> list[np.ndarray]:
        return self.rewards

    def answer(self, timeout_s: float) -> RewardAnswer:
        statistics = {"twice": [2 * rewards for rewards in self.rewards]}
        return RewardAnswer(rewards=self.rewards, version=self.version, statistics=statistics)


class ActionClient:
    """Rewards only action 2; rejects fragments whose frames and actions don't belong together."""

    def submit(
        self,
        frames: list[np.ndarray],
        actions: list[np.ndarray],
        *,
        episodes: Sequence[str] | None = None,
        maps: bool = False,
        remember: bool = True,
    ) -> Ready:
        assert episodes is not None
        assert len(episodes) == len(frames)
        rewards = []
        for frames_of, actions_of in zip(frames, actions, strict=True):
            np.testing.assert_array_equal(frames_of[1:, 0, 0, 0], 50 * (actions_of + 1))
            steps = frames_of[:, 0, 0, 1].astype(int)
            np.testing.assert_array_equal(steps, steps[0] + np.arange(len(steps)))
            reward = (actions_of == 2).astype(np.float32)
            reward[: WINDOW_ACTIONS - 1] = np.nan
            rewards.append(reward)
        return Ready(rewards, version="first" if remember else "first, not to remember")


class Dies(ActionClient):
    """Kills its runner on the second request."""

    asked = 0

    def submit(self, *args: Any, **kwargs: Any) -> Ready:
        self.asked += 1
        if self.asked == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().submit(*args, **kwargs)


class Outage:
    """Never answers: every wait lasts until its timeout."""

    def submit(self, *args: Any, **kwargs: Any) -> "Outage":
        return self

    def answer(self, timeout_s: float) -> RewardAnswer:
        time.sleep(timeout_s)
        raise RewardUnavailableError("the service is gone")


class OutageUntil(ActionClient):
    """Answers once a file is there."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        return super().submit(*args, **kwargs) if self.file.exists() else Outage()


class Judges(ActionClient):
    """After some requests, another judge answers, whose rewards are ten times as large."""

    def __init__(self, second_from: int) -> None:
        self.second_from = second_from
        self.requests = 0

    def submit(self, *args: Any, **kwargs: Any) -> Ready:
        ready = super().submit(*args, **kwargs)
        self.requests += 1
        if self.requests <= self.second_from:
            return ready
        return Ready([10 * rewards for rewards in ready.rewards], version="second+3")


class OneWindow:
    """Rewards the last action of each window by its number; accepts single windows only."""

    def submit(
        self,
        frames: list[np.ndarray],
        actions: list[np.ndarray],
        *,
        episodes: Sequence[str],
        maps: bool = False,
        remember: bool = True,
    ) -> Ready:
        for frames_of, actions_of in zip(frames, actions, strict=True):
            assert (len(frames_of), len(actions_of)) == (5, 4)
            np.testing.assert_array_equal(frames_of[1:, 0, 0, 0], 50 * (actions_of + 1))
            steps = frames_of[:, 0, 0, 1].astype(int)
            np.testing.assert_array_equal(steps, steps[0] + np.arange(5))
        rewards = [np.array([np.nan] * 3 + [actions_of[-1]], np.float32) for actions_of in actions]
        return Ready(rewards, version="first" if remember else "first, not to remember")


def held(config: dict[str, Any]) -> HeldEnv:
    """ShowsAction, or the environment given as `make`, with its actions held for `hold` steps and each one recorded."""
    return HeldEnv(config.get("make", ShowsAction)(config), config["hold"], record=True)
