"""Several games in one run: an environment that goes on to the next game when an episode is over.

Environment i of n begins with game i of the list and moves on by n at each episode's end. So all games have their turns
whatever their number, and where n is a multiple of it, each environment stays with its game.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from genie_ray.envs.config import EnvConfig
from genie_ray.envs.game import make_game

RLLIB_NAME = "genie_ray/GamesInTurn"
VECTORIZE_MODE = "vector_entry_point"
"""What `AlgorithmConfig.gym_env_vectorize_mode` has to be, so that each environment knows its number."""


class GamesInTurn(gym.Env[NDArray[np.uint8], np.int64]):
    """One game after the other. `info["game"]` tells which; one emulator at a time.

    Args:
        games: ids.
        config: of every game.
        number: of this environment, from 0 on.
        environments: how many there are.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(self, games: Sequence[str], config: EnvConfig, *, number: int = 0, environments: int = 1) -> None:
        self._games, self._config = tuple(games), config
        self._number, self._environments = number, environments
        self._turns = -1  # no episode was started yet
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
        """A step of the game that is played."""
        frame, reward, terminated, truncated, info = self._env.step(action)
        return frame, float(reward), terminated, truncated, self._named(info)

    def close(self) -> None:
        """Give the emulator back."""
        self._env.close()

    def _named(self, info: dict[str, Any]) -> dict[str, Any]:
        return {**info, "game": self._games[self._index]}


def register_rllib_games() -> str:
    """Make games in turn known to RLlib; the name to give to `AlgorithmConfig.environment`.

    Its `env_config` is `{"games": [<id>, …], "env": EnvConfig}`; the environments are to be made by VECTORIZE_MODE.
    """
    from ray.tune import register_env

    register_env(RLLIB_NAME, _make_from_env_config)
    return RLLIB_NAME


def _make_from_env_config(env_config: dict[str, Any]) -> gym.Env | gym.vector.VectorEnv:
    games, config = env_config["games"], env_config["env"]
    environments = env_config.get("num_envs")
    if environments is None:
        return GamesInTurn(games, config)
    return gym.vector.AsyncVectorEnv(
        [partial(GamesInTurn, games, config, number=i, environments=environments) for i in range(environments)]
    )
