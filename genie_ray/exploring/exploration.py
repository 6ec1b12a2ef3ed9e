"""Exploring games: an agent that goes where the world model is uncertain (paper, sections 4 and A.3).

It learns by PPO with held actions (ours), or by V-trace on replayed sequences (AutoExplore as published).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genie_ray.base.resources import free_resources
from genie_ray.base.settings import check_unchanged, keep_settings, to_dict
from genie_ray.exploring.config import ExplorersConfig
from genie_ray.exploring.rounds import Rounds
from genie_ray.games.actions import action_names
from genie_ray.playing.agents import Companion, Line, agent_iterations, is_trained, saved_iteration
from genie_ray.storage.paths import StoredPath
from policies.rewards import RewardClientFactory

if TYPE_CHECKING:
    from genie_ray.rewards.config import RewardConfig


LEARNED = (
    "entropy", "uniform_kl", "prior_kl", "state_information", "kl_of_epoch", "explained_variance", "value_loss",
    "policy_loss", "value", "advantage_of_steps_left", "rho", "rho_clipped_share", "rho_log_spread",
)  # fmt: skip
"""What a learner logs of itself."""
RLLIBS = {"vf_loss": "value_loss"}  # RLlib's own name → ours


def explore(
    output: StoredPath,
    games: Sequence[str],
    rewards: RewardClientFactory,
    run: ExplorersConfig,
    *,
    world_model: StoredPath | None = None,
) -> StoredPath:
    """Trains an explorer on the games and returns its policy's directory. Needs a running Ray.

    Args:
        rewards: makes the rollout workers' clients of the reward service, the explorer's only source of reward. Rounds
            need a `RewardService`, whose weights can be swapped.
        run: settings; `games` takes precedence over its games.
        world_model: the service's first checkpoint; required for rounds.

    Raises:
        ValueError: rounds are not possible, or the output was started with other settings.
    """
    for _ in exploration_epochs(output, games, rewards, run, world_model=world_model):
        pass
    return output / "module"


def exploration_epochs(
    output: StoredPath,
    games: Sequence[str],
    rewards: RewardClientFactory,
    run: ExplorersConfig,
    *,
    world_model: StoredPath | None = None,
) -> Generator[Line, None, None]:
    """As `explore`, but yields what each epoch logs and can be stopped early (`playing.agents.agent_iterations`)."""
    from genie_ray.exploring.log import ExplorationLog
    from genie_ray.exploring.recorder import PlayRecorder
    from genie_ray.rewards.memory import RewardMemory
    from genie_ray.rewards.service import RewardService

    config, rounds = run.exploration, None
    recorder = PlayRecorder(output, run, game=games[0])
    if config.rounds.every:
        if world_model is None or not isinstance(rewards, RewardService):
            raise ValueError("rounds train the world model behind the rewards: give that, not a running service")
        rounds = Rounds(output, run, world_model, rewards, play=recorder.dataset)
    reward = rewards.config if isinstance(rewards, RewardService) else None
    settings = settings_of(games, run, reward, world_model)
    check_unchanged(output, settings)
    keep_settings(output, settings)
    names = action_names(run.env.action_set)
    about = {"games": list(games), "action_names": list(names)}
    log = ExplorationLog(
        output,
        games[0],
        rewards,
        names,
        keeps_best=config.keeps_best,
        about=about,
        planned_workers=config.num_env_runners,
    )
    companions: list[Companion] = [log, recorder]
    if reward is not None and reward.remembers:
        assert isinstance(rewards, RewardService)
        companions.append(RewardMemory(rewards))
    if rounds is not None:
        companions.append(rounds)
    try:
        if not is_trained(output):
            recorder.forget_after(saved_iteration(output))
            if rounds is not None:
                rounds.begin()
        yield from agent_iterations(
            algorithm_config(games, rewards, run, starting=_rollout_workers(run)),
            output,
            iterations=config.epochs,
            checkpoint_every=config.checkpoint_every,
            title=f"explore {', '.join(games)}",
            figures=_figures,
            shown=("reward_mean", "entropy", "cells"),
            companions=companions,
            about=about,
            mlflow=run.ray.mlflow,
        )
        if rounds is not None:
            rounds.finish()
    finally:
        if rounds is not None:
            rounds.close()


def _spare_cpus(run: ExplorersConfig) -> int:
    """CPUs that others will need while an explorer trains, and do not have yet: the rounds' trainings."""
    return run.ray.fewest_train_workers * run.ray.cpus_per_worker if run.exploration.rounds.every else 0


def _rollout_workers(run: ExplorersConfig) -> int:
    """How many rollout workers start: all that are planned, or as many as there is room for."""
    planned, fewest = run.exploration.num_env_runners, run.fewest_rollout_workers
    if fewest == planned:
        return planned
    free = free_resources().get("CPU", 0)
    room = int(free - _spare_cpus(run) - int(run.ray.learner_apart))
    return max(fewest, min(planned, room))


def algorithm_config(
    games: Sequence[str], rewards: RewardClientFactory, run: ExplorersConfig, *, starting: int | None = None
) -> Any:
    """The training's RLlib config.

    Args:
        starting: rollout workers at the start, if these are fewer than planned.
    """
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

    from genie_ray.envs import games_in_turn
    from genie_ray.envs.game import register_rllib_env, vectorize_mode
    from policies.autoexplore.algorithm import AutoExploreConfig
    from policies.ppo.algorithm import ExplorerPPOConfig

    config, algorithm, env_config = run.exploration, AutoExploreConfig(), dict[str, Any](env=run.env)
    if config.algorithm == "ppo":
        algorithm = ExplorerPPOConfig().training(settings=config.ppo)
        env_config |= {"hold": config.ppo.hold, "record": True}
    else:
        algorithm.training(learning=config.learning, network=config.network)
    if len(games) == 1:
        algorithm.environment(register_rllib_env(), env_config={"game": games[0], **env_config})
        algorithm.env_runners(gym_env_vectorize_mode=vectorize_mode(games))
    else:
        algorithm.environment(games_in_turn.register_rllib_games(), env_config={"games": list(games), **env_config})
        algorithm.env_runners(gym_env_vectorize_mode=games_in_turn.VECTORIZE_MODE)
    evaluation = AlgorithmConfig.overrides(
        num_cpus_per_env_runner=0,  # it is short and rare
        num_envs_per_env_runner=max(config.num_envs, len(games)),  # at least one episode of each game
    )
    return (
        algorithm.env_runners(num_env_runners=starting or config.num_env_runners)
        .evaluation(evaluation_num_env_runners=1, evaluation_config=evaluation)
        .learners(num_learners=int(run.ray.learner_apart), num_gpus_per_learner=int(run.ray.use_gpu))
        .training(
            reward_client_factory=rewards,
            learner_threads=run.ray.torch_threads(2),  # leaves half of the cores to emulators and reward model
            planned_env_runners=config.num_env_runners,
            fewest_env_runners=run.fewest_rollout_workers,
            spare_cpus=_spare_cpus(run),
        )
        .debugging(seed=run.seed, log_level="ERROR")
    )


def settings_of(
    games: Sequence[str], run: ExplorersConfig, reward: RewardConfig | None, world_model: StoredPath | None
) -> dict[str, Any]:
    """The settings that must not change while an explorer's training continues, as plain values."""
    from genie_ray.storage.checkpoints import read_description

    return {
        "games": list(games),
        "seed": run.seed,
        "env": to_dict(run.env),
        "exploration": to_dict(run.exploration),
        "reward": None if reward is None else to_dict(reward),
        "world_model": None if world_model is None else read_description(world_model)["weights_sha256"],
    }


def _figures(result: Mapping[str, Any]) -> dict[str, float]:
    """Rewards are the judge's; `game_return` is the game's own reward, which is not learned from."""
    runners, explored = result["env_runners"], result["exploration"]
    learner = result.get("learners", {}).get("default_policy", {})  # an epoch may have no update
    figures = {key: float(value) for key, value in explored.items()}
    figures["game_return"] = float(runners.get("episode_return_mean", float("nan")))
    figures |= {key: float(runners.get(key, 0)) for key in ("fragments_dropped", "reward_wait_s")}
    figures |= {key: float(learner[key]) for key in LEARNED if key in learner}
    figures |= {name: float(learner[key]) for key, name in RLLIBS.items() if key in learner}
    return figures
