"""The environment of any game by its id, and its registration with RLlib."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import gymnasium as gym

from genie_ray.envs.config import EnvConfig
from genie_ray.envs.procgen import ProcgenEnv
from genie_ray.envs.retro import RetroEnv
from genie_ray.games.procgen import PROCGEN_GAMES
from policies.play.held import HeldEnv

RLLIB_NAME = "genie_ray/RetroEnv"


def make_game(game: str, config: EnvConfig | None = None, *, native_frame_every: int = 0) -> RetroEnv | ProcgenEnv:
    """The environment of a game, by its id: Stable-Retro's or procgen's.

    Raises:
        ValueError: see `RetroEnv` and `ProcgenEnv`.
    """
    if game in PROCGEN_GAMES:
        return ProcgenEnv(game, config, native_frame_every=native_frame_every)
    return RetroEnv(game, config, native_frame_every=native_frame_every)


def vectorize_mode(games: Iterable[str]) -> Literal["sync", "async"]:
    """How RLlib steps several environments of a rollout worker, as `AlgorithmConfig.gym_env_vectorize_mode`.

    An emulator needs a process of its own. A step of procgen's games takes less time than a message to another process.
    """
    return "sync" if all(game in PROCGEN_GAMES for game in games) else "async"


def register_rllib_env() -> str:
    """Register the games with RLlib; returns the name for `AlgorithmConfig.environment`.

    Its `env_config` is `{"game": <id>, "env": EnvConfig}`; and, where wanted, `"native_frame_every"`, `"hold"` and
    `"record"` (`policies.play.held.HeldEnv`).
    """
    from ray.tune import register_env

    register_env(RLLIB_NAME, _make_from_env_config)
    return RLLIB_NAME


def _make_from_env_config(env_config: dict[str, Any]) -> gym.Env:
    game = make_game(env_config["game"], env_config["env"], native_frame_every=env_config.get("native_frame_every", 0))
    return held(game, env_config)


def held(game: gym.Env, env_config: Mapping[str, Any]) -> gym.Env:
    """The game with held actions, if `"hold"` is given."""
    if "hold" not in env_config:
        return game
    return HeldEnv(game, env_config["hold"], record=env_config.get("record", False))
