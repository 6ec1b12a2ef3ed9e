"""What an explorer's training needs of a cluster, and what is refused before anything starts."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from genie_ray.base.settings import build
from genie_ray.config import RunConfig
from genie_ray.exploring.explorers import check_room, roles, train_explorers


def run_config(**exploration: Any) -> RunConfig:
    settings = {
        "exploration": exploration,
        "reward": {"cpus": 0.5, "gpus": 0.25, "replicas": 2},
        "ray": {"train_workers": 3, "cpus_per_worker": 2, "use_gpu": True},
    }
    return build(RunConfig, settings)


@pytest.mark.parametrize(
    ("every", "cpus", "gpus"),
    [
        (0, 4 + 2 * 0.5, 2 * 0.25),
        (5, 4 + 2 * 0.5 + 3 * 2, 2 * 0.25 + 3),
    ],
)
def test_workers_replicas_and_rounds_are_counted(every: int, cpus: float, gpus: float) -> None:
    needed = roles(run_config(num_env_runners=4, rounds={"every": every}), replicas=2)
    assert sum(role.count * role.cpus for role in needed) == cpus
    assert sum(role.count * role.gpus for role in needed) == gpus


def test_a_learner_apart_is_counted() -> None:
    run = run_config(num_env_runners=1)
    apart = dataclasses.replace(run, ray=dataclasses.replace(run.ray, learner_apart=True))
    (learner,) = [role for role in roles(apart, replicas=1) if role not in roles(run, replicas=1)]
    assert (learner.count, learner.cpus, learner.gpus) == (1, 1, 1)


def test_more_workers_than_the_cluster_has_room_for_are_refused(ray_session: None) -> None:
    with pytest.raises(
        ValueError, match=r"needs 1001 CPUs \(rollout workers 1000, reward service 1\); the cluster has"
    ):
        check_room(run_config(num_env_runners=1000), replicas=2)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"window": 40}, r"rounds.training.window = 40: .* takes at most \d+ frames"),
        ({"batch_size": 7, "accumulate": 2}, r"batch_size = 7: must be a multiple of .* = 1 × 2"),
    ],
)
def test_rounds_that_could_not_learn_are_refused(
    ray_session: None, world_model: Path, tmp_path: Path, training: dict[str, Any], message: str
) -> None:
    settings: dict[str, Any] = {"exploration": {"epochs": 10, "rounds": {"every": 2, "training": training}}}
    # Of a model that this run would train, not of the one that judges.
    settings |= {"tokenizer": {"max_frames": 64}, "dynamics": {"max_frames": 64}}
    with pytest.raises(ValueError, match=message):
        next(train_explorers(tmp_path, ["Kangaroo-Atari2600-v0"], world_model, build(RunConfig, settings)))
    assert not list(tmp_path.iterdir())
