"""Actions that are held: an agent decides once, and its action is repeated for several steps.

Held actions make play persistent, without which random play and a young policy stay where they are (Mnih et al. 2015
hold for 4 emulator frames, which a step here already does; Dabney et al. 2020, 2006.01782, on why longer is better).
Each step in between is recorded, so a dataset does not depend on who held what.
"""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

SHOWN_FRAMES = 2  # the agent sees the last two frames, so that it sees what moves
STEPS = "steps"  # key of a decision's info: its `HeldSteps`


@dataclass(frozen=True, kw_only=True)
class HeldSteps:
    """The k steps of a decision, from step number `first` of their episode on; k is 0 for a reset."""

    first: int
    frames: NDArray[np.uint8]  # [k, H, W, C], after each step; after a reset: [1, H, W, C]
    rewards: NDArray[np.float32]  # [k], the game's own
    infos: list[dict[str, Any]]  # of each frame


class HeldEnv(gym.Env[NDArray[np.uint8], np.int64]):
    """Repeats each action; shows the last `SHOWN_FRAMES` frames, uint8 [H, W, frames · C].

    A decision's reward is the sum over its steps, and its info that of its last step. With `record`, the info also has
    each step (`STEPS`).

    Args:
        env: with uint8 frames [H, W, C].
        hold: steps per decision; fewer where the episode ends.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(self, env: gym.Env, hold: int, *, record: bool = False) -> None:
        self.env, self._hold, self._record = env, hold, record
        height, width, channels = env.observation_space.shape or ()
        self.observation_space = gym.spaces.Box(0, 255, (height, width, SHOWN_FRAMES * channels), np.uint8)
        self.action_space = env.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start an episode; all frames shown are its first."""
        super().reset(seed=seed)
        frame, info = self.env.reset(seed=seed, options=options)
        self._steps, self._shown = 0, [frame] * SHOWN_FRAMES
        return self._observe([], [frame], [info], info)

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Hold an action."""
        frames: list[NDArray[np.uint8]] = []
        rewards: list[float] = []
        infos: list[dict[str, Any]] = []
        terminated = truncated = False
        while len(frames) < self._hold and not (terminated or truncated):
            frame, reward, terminated, truncated, info = self.env.step(action)
            frames.append(frame)
            rewards.append(float(reward))
            infos.append(info)
        self._shown = [*self._shown, *frames][-SHOWN_FRAMES:]
        observation, info = self._observe(rewards, frames, infos, infos[-1])
        self._steps += len(frames)
        return observation, sum(rewards), terminated, truncated, info

    def close(self) -> None:
        """Release the game."""
        self.env.close()

    def _observe(
        self,
        rewards: list[float],
        frames: list[NDArray[np.uint8]],
        infos: list[dict[str, Any]],
        info: dict[str, Any],
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        observation = np.concatenate(self._shown, axis=-1)
        if self._record:
            steps = HeldSteps(
                first=self._steps, frames=np.stack(frames), rewards=np.array(rewards, np.float32), infos=infos
            )
            info = {**info, STEPS: steps}
        return observation, info
