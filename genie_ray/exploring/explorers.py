"""A run's explorers, trained one after another, each with its own reward service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import ray

from genie_ray.base.settings import check_unchanged
from genie_ray.exploring.config import ExplorersConfig
from genie_ray.exploring.exploration import exploration_epochs, settings_of
from genie_ray.exploring.rounds import check_rounds, judge_of
from genie_ray.games.actions import action_names
from genie_ray.playing.agents import Line, saved_companions
from genie_ray.rewards.deployment import replica_gpus
from genie_ray.rewards.memory import restore
from genie_ray.rewards.service import remove_services, reward_service, service_name


def cluster_needs(run: ExplorersConfig, replicas: int) -> dict[str, dict[str, float]]:
    """What training one explorer needs, besides the calling process: resource → purpose → amount.

    Args:
        replicas: of the reward service; how many to count.
    """
    trainers = run.ray.train_workers if run.exploration.rounds.every else 0
    reward = "reward service"
    rounds = "training in rounds"
    return {
        "CPU": {
            "rollout workers": run.exploration.num_env_runners,
            reward: run.reward.cpus * replicas,
            rounds: trainers * run.ray.cpus_per_worker,
        },
        "GPU": {reward: replica_gpus(run.reward) * replicas, rounds: trainers * int(run.ray.use_gpu)},
    }


def check_room(run: ExplorersConfig, *, replicas: int) -> None:
    """Refuses an explorer that would wait for workers forever. Needs a running Ray.

    Raises:
        ValueError: the cluster has less than `cluster_needs`.
    """
    there = ray.cluster_resources()
    for resource, needs in cluster_needs(run, replicas).items():
        if (wanted := sum(needs.values())) > there.get(resource, 0):
            parts = ", ".join(f"{name} {amount:g}" for name, amount in needs.items() if amount)
            raise ValueError(
                f"an explorer needs {wanted:g} {resource}s ({parts}); the cluster has {there.get(resource, 0):g}"
            )


def train_explorers(directory: Path, games: Sequence[str], world_model: Path, run: ExplorersConfig) -> Iterator[Path]:
    """Trains a run's explorers one after another and yields their policies' directories. Needs a running Ray.

    Each has its own reward service: what a reward learns or remembers concerns one explorer's play.

    Raises:
        ValueError: settings that do not fit together, or do not fit the cluster, the world model or an earlier start.
    """
    check_room(run, replicas=run.reward.replicas)
    check_rounds(run.exploration.rounds, world_model, run.ray)
    for name, played in run.exploration.agents(games).items():
        output = directory / name
        check_unchanged(output, settings_of(played, run, run.reward, world_model))
        if not (output / "module").exists():
            with judged_epochs(output, played, world_model, run, app_name=service_name(output)) as epochs:
                for _ in epochs:
                    pass
        yield output / "module"


@contextmanager
def judged_epochs(
    output: Path, games: Sequence[str], world_model: Path, run: ExplorersConfig, *, app_name: str
) -> Iterator[Iterator[Line]]:
    """The epochs of an explorer's training (`exploration_epochs`) with its own reward service, for a `with` block.

    Leaving the block early stops the training; play stops before the service does.
    """
    remove_services(app_name)  # of a run that was killed
    restore(output / "rewards", saved_companions(output), run.reward)
    with (
        reward_service(
            judge_of(output, world_model),
            run.reward,
            frame_size=run.env.frame_size,
            action_names=action_names(run.env.action_set),
            state=output / "rewards",
            app_name=app_name,
        ) as rewards,
        closing(exploration_epochs(output, games, rewards, run, world_model=world_model)) as epochs,
    ):
        yield epochs
