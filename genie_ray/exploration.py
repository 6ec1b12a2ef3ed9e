"""AutoExplore on games: an agent that goes where the world model is unsure (paper, sections 4 and A.3)."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genie_ray.agents import Line, agent_iterations
from genie_ray.envs.retro import EnvConfig
from genie_ray.rounds import Rounds, RoundsConfig
from genie_ray.session import RayConfig
from policies.autoexplore.config import AutoExploreLearningConfig
from policies.autoexplore.module import AutoExploreModuleConfig
from policies.rewards import RewardClientFactory

SHARED = "shared"
"""Directory of an agent of several games, where other agents have their game's id."""


@dataclass(frozen=True, kw_only=True)
class ExplorationConfig:
    """Explorers. Defaults: paper, A.3."""

    epochs: int = 300
    checkpoint_every: int = 20  # epochs
    num_env_runners: int = 1  # rollout workers, each with learning.num_envs emulators
    shared: bool = False  # one explorer of all games, in place of one per game; ours
    network: AutoExploreModuleConfig = field(default_factory=AutoExploreModuleConfig)
    learning: AutoExploreLearningConfig = field(default_factory=AutoExploreLearningConfig)
    rounds: RoundsConfig = field(default_factory=RoundsConfig)

    def __post_init__(self) -> None:
        for name in ("epochs", "checkpoint_every", "num_env_runners"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        learning = self.learning
        between = self.rounds.every * self.num_env_runners * learning.num_envs * learning.steps_per_epoch
        if between > learning.replay_capacity:
            raise ValueError(
                f"rounds.every = {self.rounds.every}: {between} steps between rounds must be at most "
                f"learning.replay_capacity = {learning.replay_capacity}, or some would be forgotten unlearned"
            )

    def agents(self, games: Sequence[str]) -> dict[str, list[str]]:
        """The agents' directories, each with the games it plays."""
        return {SHARED: list(games)} if self.shared else {game: [game] for game in games}


def explore(
    output: Path,
    games: Sequence[str],
    rewards: RewardClientFactory,
    config: ExplorationConfig,
    env: EnvConfig,
    *,
    world_model: Path | None = None,
    ray: RayConfig | None = None,
    seed: int = 0,
) -> Path:
    """Trains an explorer of the games and returns the directory of its policy. Needs a running Ray.

    Args:
        rewards: makes the rollout workers' clients of the reward service; nothing else rewards the explorer. Rounds
            need a `RewardService`, whose weights can be swapped.
        world_model: what the service starts with; needed for rounds.
        ray: for the rounds' trainings.

    Raises:
        ValueError: the replay buffer is too small, or there cannot be rounds.
    """
    epochs = exploration_epochs(output, games, rewards, config, env, world_model=world_model, ray=ray, seed=seed)
    for _ in epochs:
        pass
    return output / "module"


def exploration_epochs(
    output: Path,
    games: Sequence[str],
    rewards: RewardClientFactory,
    config: ExplorationConfig,
    env: EnvConfig,
    *,
    world_model: Path | None = None,
    ray: RayConfig | None = None,
    seed: int = 0,
) -> Generator[Line, None, None]:
    """As `explore`, but yields what each epoch logs and can be ended early (`genie_ray.agents.agent_iterations`)."""
    from genie_ray.exploration_log import ExplorationLog

    config.learning.check_capacity(num_env_runners=config.num_env_runners, episode_steps=env.max_episode_steps)
    companions: list[Any] = [ExplorationLog(output, games[0], rewards)]
    if config.rounds.every and not (output / "module").exists():
        rounds = _rounds(output, games, rewards, config, env, world_model, ray or RayConfig(), seed)
        companions.append(rounds)
    yield from agent_iterations(
        algorithm_config(games, rewards, config, env, seed=seed),
        output,
        iterations=config.epochs,
        checkpoint_every=config.checkpoint_every,
        title=f"explore {', '.join(games)}",
        figures=_figures,
        shown=("reward_mean", "entropy", "cells"),
        companions=companions,
    )
    for companion in companions[1:]:
        companion.finish()


def algorithm_config(
    games: Sequence[str], rewards: RewardClientFactory, config: ExplorationConfig, env: EnvConfig, *, seed: int
) -> Any:
    """RLlib's description of the training."""
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

    from genie_ray.envs import games_in_turn
    from genie_ray.envs.retro import register_rllib_env
    from policies.autoexplore.algorithm import AutoExploreConfig

    algorithm = AutoExploreConfig()
    if len(games) == 1:
        algorithm.environment(register_rllib_env(), env_config={"game": games[0], "env": env})
    else:
        name = games_in_turn.register_rllib_games()
        algorithm.environment(name, env_config={"games": list(games), "env": env})
        algorithm.env_runners(gym_env_vectorize_mode=games_in_turn.VECTORIZE_MODE)
    return (
        algorithm.env_runners(num_env_runners=config.num_env_runners)
        # An evaluation is short and rare: its runner claims no CPU for itself.
        .evaluation(
            evaluation_num_env_runners=1, evaluation_config=AlgorithmConfig.overrides(num_cpus_per_env_runner=0)
        )
        .training(learning=config.learning, network=config.network, reward_client_factory=rewards)
        .debugging(seed=seed, log_level="ERROR")
    )


def _rounds(
    output: Path,
    games: Sequence[str],
    rewards: RewardClientFactory,
    config: ExplorationConfig,
    env: EnvConfig,
    world_model: Path | None,
    ray: RayConfig,
    seed: int,
) -> Rounds:
    from genie_ray.rewards.service import RewardService

    if world_model is None or not isinstance(rewards, RewardService):
        raise ValueError("rounds train the world model that gives the rewards: name it, not a service that runs")
    rewards.swap(world_model)  # an explorer before may have left another
    return Rounds(
        output,
        config.rounds,
        world_model,
        rewards,
        epochs=config.epochs,
        game=games[0],
        env=env,
        ray=ray,
        seed=seed,
    )


def _figures(result: Mapping[str, Any]) -> dict[str, float]:
    """Rewards are the judge's; `game_return` is what the game would have paid, which nobody learns from."""
    runners, learner, explored = result["env_runners"], result["learners"]["default_policy"], result["exploration"]
    figures = {key: float(value) for key, value in explored.items()}
    figures["game_return"] = float(runners.get("episode_return_mean", float("nan")))
    learned = ("entropy", "prior_kl", "kl_of_epoch", "value_loss", "policy_loss", "value")
    ratios = ("rho", "rho_clipped_share", "rho_log_spread")
    figures |= {key: float(learner[key]) for key in (*learned, *ratios) if key in learner}
    return figures
