"""A run's explorers, trained one after another, each with its own reward service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from genie_ray.base.resources import Role, learner_role, require_room
from genie_ray.base.settings import check_unchanged
from genie_ray.exploring.config import ExplorersConfig
from genie_ray.exploring.exploration import exploration_epochs, settings_of
from genie_ray.exploring.rounds import check_rounds, judge_of
from genie_ray.games.actions import action_names
from genie_ray.playing.agents import Line, is_trained, saved_companions
from genie_ray.rewards.deployment import replica_gpus
from genie_ray.rewards.memory import restore
from genie_ray.rewards.service import remove_services, remove_what_was_left, reward_service, service_name
from genie_ray.storage.paths import StoredPath


def roles(run: ExplorersConfig, replicas: int) -> list[Role]:
    """What training one explorer runs at the same time, besides the calling process.

    Args:
        replicas: of the reward service; how many to count.
    """
    return [
        Role(name="rollout workers", count=run.fewest_rollout_workers),
        learner_role(run.ray),
        Role(name="reward service", count=replicas, cpus=run.reward.cpus, gpus=replica_gpus(run.reward)),
        Role(
            name="training in rounds",
            count=run.ray.fewest_train_workers if run.exploration.rounds.every else 0,
            cpus=run.ray.cpus_per_worker,
            gpus=int(run.ray.use_gpu),
        ),
    ]


def check_room(run: ExplorersConfig, *, replicas: int) -> None:
    """Refuses an explorer that would wait for workers forever. Needs a running Ray.

    Raises:
        ValueError: the cluster has less than its `roles` need.
    """
    require_room("an explorer", roles(run, replicas), run.ray)


def train_explorers(
    directory: StoredPath, games: Sequence[str], world_model: StoredPath, run: ExplorersConfig
) -> Iterator[StoredPath]:
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
        if not is_trained(output):
            app_name = service_name(output)
            remove_what_was_left(app_name)
            with judged_epochs(output, played, world_model, run, app_name=app_name) as epochs:
                for _ in epochs:
                    pass
        yield output / "module"


@contextmanager
def judged_epochs(
    output: StoredPath, games: Sequence[str], world_model: StoredPath, run: ExplorersConfig, *, app_name: str
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
