"""The environment of any game by its id, and its registration with RLlib."""

from collections.abc import Iterable
from typing import Any, Literal

from genie_ray.envs.coinrun import CoinRunEnv
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.retro import RetroEnv
from genie_ray.games.roms import COINRUN

RLLIB_NAME = "genie_ray/RetroEnv"


def make_game(game: str, config: EnvConfig | None = None, *, native_frame_every: int = 0) -> RetroEnv | CoinRunEnv:
    """The environment of a game, by its id: Stable-Retro's, or `CoinRun`.

    Raises:
        ValueError: see `RetroEnv` and `CoinRunEnv`.
    """
    if game == COINRUN:
        return CoinRunEnv(config, native_frame_every=native_frame_every)
    return RetroEnv(game, config, native_frame_every=native_frame_every)


def vectorize_mode(games: Iterable[str]) -> Literal["sync", "async"]:
    """How RLlib steps several environments of a rollout worker, as `AlgorithmConfig.gym_env_vectorize_mode`.

    An emulator needs a process of its own. A step of CoinRun takes less time than a message to another process.
    """
    return "sync" if all(game == COINRUN for game in games) else "async"


def register_rllib_env() -> str:
    """Register the games with RLlib; returns the name for `AlgorithmConfig.environment`.

    Its `env_config` is `{"game": <id>, "env": EnvConfig}`, and `"native_frame_every"` if that is not 0.
    """
    from ray.tune import register_env

    register_env(RLLIB_NAME, _make_from_env_config)
    return RLLIB_NAME


def _make_from_env_config(env_config: dict[str, Any]) -> RetroEnv | CoinRunEnv:
    return make_game(env_config["game"], env_config["env"], native_frame_every=env_config.get("native_frame_every", 0))
