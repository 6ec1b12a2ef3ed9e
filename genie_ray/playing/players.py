"""Test agents: RLlib's PPO, trained briefly on the game's own reward.

They play the test set, mixed with random actions, so that it covers what neither random play nor the explorer aims for.
A stand-in for the paper's Agent57 (section 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genie_ray.base.settings import check_unchanged, keep_settings, to_dict
from genie_ray.envs.config import EnvConfig
from genie_ray.playing.agents import train_agent
from genie_ray.playing.config import PlayerConfig


def train_player(output: Path, game: str, config: PlayerConfig, env: EnvConfig, *, seed: int = 0) -> Path:
    """Trains a game's test agent and returns the directory of its policy. Needs a running Ray.

    Raises:
        ValueError: the output was started with other settings.
    """
    from genie_ray.envs.game import register_rllib_env, vectorize_mode
    from policies.ppo.test_agents import ppo_config

    settings = {"game": game, "seed": seed, "env": to_dict(env), "player": to_dict(config)}
    check_unchanged(output, settings, what="a test agent")
    keep_settings(output, settings)
    algorithm = ppo_config(register_rllib_env(), {"game": game, "env": env, "hold": config.ppo.hold}, config.ppo)
    algorithm = algorithm.env_runners(num_env_runners=1, gym_env_vectorize_mode=vectorize_mode([game])).debugging(
        seed=seed, log_level="ERROR"
    )
    return train_agent(
        algorithm,
        output,
        iterations=config.iterations,
        checkpoint_every=config.checkpoint_every,
        title=f"test agent for {game}",
        figures=_figures,
        shown=("return", "entropy", "env_steps"),
    )


def _figures(result: Mapping[str, Any]) -> dict[str, float]:
    runners = result["env_runners"]
    learner = result["learners"]["default_policy"]
    return {
        "env_steps": float(runners["num_env_steps_sampled_lifetime"]),
        "return": float(runners.get("episode_return_mean", float("nan"))),
        "entropy": float(learner["entropy"]),
    }
