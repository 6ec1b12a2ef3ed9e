"""AutoExplore on a game: the agent learns to go where the world model is unsure (paper, sections 4 and A.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genie_ray.agents import train_agent
from genie_ray.envs.retro import EnvConfig
from policies.autoexplore.algorithm import AutoExploreLearningConfig
from policies.autoexplore.module import AutoExploreModuleConfig
from policies.rewards import RewardClientFactory


@dataclass(frozen=True, kw_only=True)
class ExplorationConfig:
    """One explorer per game. Defaults: paper, A.3."""

    epochs: int = 300
    checkpoint_every: int = 20  # epochs
    num_env_runners: int = 1  # rollout workers, each with learning.num_envs emulators
    network: AutoExploreModuleConfig = field(default_factory=AutoExploreModuleConfig)
    learning: AutoExploreLearningConfig = field(default_factory=AutoExploreLearningConfig)

    def __post_init__(self) -> None:
        for name in ("epochs", "checkpoint_every", "num_env_runners"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")


def explore(
    output: Path,
    game: str,
    rewards: RewardClientFactory,
    config: ExplorationConfig,
    env: EnvConfig,
    *,
    seed: int = 0,
) -> Path:
    """Trains a game's explorer and returns the directory of its policy. Needs a running Ray.

    Args:
        rewards: makes the rollout workers' clients of the reward service; nothing else rewards the explorer.
    """
    from genie_ray.envs.retro import register_rllib_env
    from policies.autoexplore.algorithm import AutoExploreConfig

    algorithm = (
        AutoExploreConfig()
        .environment(register_rllib_env(), env_config={"game": game, "env": env})
        .env_runners(num_env_runners=config.num_env_runners)
        .training(learning=config.learning, network=config.network, reward_client_factory=rewards)
        .debugging(seed=seed, log_level="ERROR")
    )
    return train_agent(
        algorithm,
        output,
        iterations=config.epochs,
        checkpoint_every=config.checkpoint_every,
        title=f"explore {game}",
        figures=_figures,
        shown=("reward_mean", "entropy", "env_steps"),
    )


def _figures(result: Mapping[str, Any]) -> dict[str, float]:
    """Rewards are the model's uncertainty; `game_return` is what the game would have paid, which nobody learns from."""
    runners, learner, explored = result["env_runners"], result["learners"]["default_policy"], result["exploration"]
    figures = {key: float(value) for key, value in explored.items()}
    figures["game_return"] = float(runners.get("episode_return_mean", float("nan")))
    figures |= {key: float(learner[key]) for key in ("entropy", "rho", "value_loss", "policy_loss") if key in learner}
    return figures
