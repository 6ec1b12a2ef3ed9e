"""AutoExplore on games: an agent that goes where the world model is unsure (paper, sections 4 and A.3)."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from genie_ray.agents import Companion, Line, agent_iterations
from genie_ray.envs.actions import action_names
from genie_ray.envs.retro import EnvConfig
from genie_ray.files import write_atomically
from genie_ray.rounds import Rounds, RoundsConfig
from genie_ray.session import RayConfig
from policies.autoexplore.config import AutoExploreLearningConfig, AutoExploreModuleConfig
from policies.rewards import RewardClientFactory

if TYPE_CHECKING:
    from genie_ray.rewards.config import RewardConfig

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
        if 2 * self.rounds.every > self.epochs:
            raise ValueError(
                f"rounds.every = {self.rounds.every}: must be at most half of epochs = {self.epochs}, so that what is "
                "learned in a round can judge as long as a round lasts"
            )
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
        ray: whether the learner has a GPU, and for the rounds' trainings.

    Raises:
        ValueError: the replay buffer is too small, there cannot be rounds, or the output was begun with other settings.
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
    from genie_ray.config import SETTINGS_FILE, check_unchanged
    from genie_ray.exploration_log import ExplorationLog
    from genie_ray.rewards.memory import RewardMemory
    from genie_ray.rewards.service import RewardService

    ray = ray or RayConfig()
    config.learning.check_capacity(num_env_runners=config.num_env_runners, episode_steps=env.max_episode_steps)
    rounds = None
    if config.rounds.every:
        if world_model is None or not isinstance(rewards, RewardService):
            raise ValueError("rounds train the world model that gives the rewards: name it, not a service that runs")
        rounds = Rounds(
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
    reward = rewards.config if isinstance(rewards, RewardService) else None
    settings = settings_of(games, config, env, seed, reward, world_model)
    check_unchanged(output, settings)
    output.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(settings, sort_keys=False)
    write_atomically(output / SETTINGS_FILE, lambda path: path.write_text(text))
    companions: list[Companion] = [ExplorationLog(output, games[0], rewards, action_names(env.action_set))]
    if reward is not None and reward.remembers:
        assert isinstance(rewards, RewardService)
        companions.append(RewardMemory(rewards))
    if rounds is not None:
        companions.append(rounds)
    try:
        if rounds is not None and not (output / "module").exists():
            rounds.begin()
        yield from agent_iterations(
            algorithm_config(games, rewards, config, env, ray, seed=seed),
            output,
            iterations=config.epochs,
            checkpoint_every=config.checkpoint_every,
            title=f"explore {', '.join(games)}",
            figures=_figures,
            shown=("reward_mean", "entropy", "cells"),
            companions=companions,
        )
        if rounds is not None:
            rounds.finish()
    finally:
        if rounds is not None:
            rounds.close()


def algorithm_config(
    games: Sequence[str],
    rewards: RewardClientFactory,
    config: ExplorationConfig,
    env: EnvConfig,
    ray: RayConfig,
    *,
    seed: int,
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
    evaluation = AlgorithmConfig.overrides(
        num_cpus_per_env_runner=0,  # it is short and rare
        num_envs_per_env_runner=max(config.learning.num_envs, len(games)),  # an episode of each game, or more
    )
    return (
        algorithm.env_runners(num_env_runners=config.num_env_runners)
        .evaluation(evaluation_num_env_runners=1, evaluation_config=evaluation)
        .learners(num_gpus_per_learner=int(ray.use_gpu))
        .training(
            learning=config.learning,
            network=config.network,
            reward_client_factory=rewards,
            learner_threads=ray.torch_threads(2),  # half of the cores are for emulators and reward model
        )
        .debugging(seed=seed, log_level="ERROR")
    )


def settings_of(
    games: Sequence[str],
    config: ExplorationConfig,
    env: EnvConfig,
    seed: int,
    reward: RewardConfig | None,
    world_model: Path | None,
) -> dict[str, Any]:
    """What an explorer's training must go on with, as plain values."""
    from genie_ray.config import to_dict
    from world_model.checkpoint import read_description

    return {
        "games": list(games),
        "seed": seed,
        "env": to_dict(env),
        "exploration": to_dict(config),
        "reward": None if reward is None else to_dict(reward),
        "world_model": None if world_model is None else read_description(world_model)["weights_sha256"],
    }


def _figures(result: Mapping[str, Any]) -> dict[str, float]:
    """Rewards are the judge's; `game_return` is what the game would have paid, which nobody learns from."""
    runners, explored = result["env_runners"], result["exploration"]
    learner = result.get("learners", {}).get("default_policy", {})  # an epoch may bring no update
    figures = {key: float(value) for key, value in explored.items()}
    figures["game_return"] = float(runners.get("episode_return_mean", float("nan")))
    figures |= {key: float(runners.get(key, 0)) for key in ("fragments_dropped", "reward_wait_s")}
    learned = ("entropy", "prior_kl", "kl_of_epoch", "value_loss", "policy_loss", "value")
    ratios = ("rho", "rho_clipped_share", "rho_log_spread")
    figures |= {key: float(learner[key]) for key in (*learned, *ratios) if key in learner}
    return figures
