"""Several games in one run: an environment that switches to the next game when an episode ends.

Environment i of n starts with game i of the list and advances by n at each episode's end. So every game gets its turn,
however many there are; if n is a multiple of their number, each environment stays with its game.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from genie_ray.envs.config import EnvConfig
from genie_ray.envs.game import held, make_game

RLLIB_NAME = "genie_ray/GamesInTurn"
VECTORIZE_MODE = "vector_entry_point"
"""The `AlgorithmConfig.gym_env_vectorize_mode` to use, so that each environment knows its number."""


class GamesInTurn(gym.Env[NDArray[np.uint8], np.int64]):
    """Plays one game after another, one emulator at a time; `info["game"]` names the game.

    Args:
        games: ids.
        config: of every game.
        number: of this environment, from 0.
        environments: how many there are.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(self, games: Sequence[str], config: EnvConfig, *, number: int = 0, environments: int = 1) -> None:
        self._games, self._config = tuple(games), config
        self._number, self._environments = number, environments
        self._turns = -1  # no episode has started yet
        self._index = number % len(games)
        self._env = make_game(self._games[self._index], config)
        self.observation_space, self.action_space = self._env.observation_space, self._env.action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start an episode: with a seed, of the environment's first game; without one, of the next game."""
        super().reset(seed=seed)
        turns = 0 if seed is not None else self._turns + 1
        following = (self._number + turns * self._environments) % len(self._games)
        if following != self._index:
            self._env.close()
            self._index, self._env = following, make_game(self._games[following], self._config)
        self._turns = turns
        frame, info = self._env.reset(seed=seed, options=options)
        return frame, self._named(info)

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """A step of the current game."""
        frame, reward, terminated, truncated, info = self._env.step(action)
        return frame, float(reward), terminated, truncated, self._named(info)

    def close(self) -> None:
        """Release the emulator."""
        self._env.close()

    def _named(self, info: dict[str, Any]) -> dict[str, Any]:
        return {**info, "game": self._games[self._index]}


def register_rllib_games() -> str:
    """Register games in turn with RLlib; returns the name for `AlgorithmConfig.environment`.

    Its `env_config` is `{"games": [<id>, …], "env": EnvConfig}` with what `envs.game.held` takes; the environments must
    be made by VECTORIZE_MODE.
    """
    from ray.tune import register_env

    register_env(RLLIB_NAME, _make_from_env_config)
    return RLLIB_NAME


def _make_from_env_config(env_config: dict[str, Any]) -> gym.Env | gym.vector.VectorEnv:
    games, config = env_config["games"], env_config["env"]
    environments = env_config.get("num_envs")
    if environments is None:
        return held(GamesInTurn(games, config), env_config)
    return gym.vector.AsyncVectorEnv([partial(_make_one, env_config, i, environments) for i in range(environments)])


def _make_one(env_config: dict[str, Any], number: int, environments: int) -> gym.Env:
    games, config = env_config["games"], env_config["env"]
    return held(GamesInTurn(games, config, number=number, environments=environments), env_config)
