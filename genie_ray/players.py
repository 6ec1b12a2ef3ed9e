"""Test agents: RLlib's PPO, trained briefly on the game's own reward.

They play the test set, mixed with random actions, so that it holds what neither random play nor the explorer was made
to reach. A stand-in for the paper's Agent57 (section 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genie_ray.agents import train_agent
from genie_ray.envs.retro import EnvConfig
from policies.baselines.config import PPOSettings


@dataclass(frozen=True, kw_only=True)
class PlayerConfig:
    """One test agent per game."""

    iterations: int = 1_000  # of num_envs × fragment_length steps each; ours: about a million steps
    checkpoint_every: int = 20
    ppo: PPOSettings = field(default_factory=PPOSettings)

    def __post_init__(self) -> None:
        for name in ("iterations", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")


def train_player(output: Path, game: str, config: PlayerConfig, env: EnvConfig, *, seed: int = 0) -> Path:
    """Trains a game's test agent and returns the directory of its policy. Needs a running Ray."""
    from genie_ray.envs.retro import register_rllib_env
    from policies.baselines.ppo import ppo_config

    algorithm = ppo_config(register_rllib_env(), {"game": game, "env": env}, config.ppo)
    algorithm = algorithm.env_runners(num_env_runners=1).debugging(seed=seed, log_level="ERROR")
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
