"""The reward service as a Ray Serve deployment: its replicas' settings and resources, and checks before it starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import serve

from genie_ray import __version__
from genie_ray.rewards.client import DEPLOYMENT
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.replica import RewardModel
from genie_ray.rewards.state import describe_checkpoint
from genie_ray.storage.paths import Location, RemotePath, resolve
from policies.baselines.curiosity import STRIDE
from policies.ray_internals import deployment_version

MAX_ONGOING = 32  # requests inside one replica, which forms its next batches from them
REQUESTS_PER_REPLICA = 4.0  # in flight; above that, replicas are added
HEALTH_CHECK_S = 2.0  # a dead replica is replaced within this time


def check_checkpoint(checkpoint: Location, *, frame_size: int, action_names: Sequence[str]) -> str:
    """Checks, before anything starts, that a checkpoint can judge these environments; returns its weights' hash.

    Raises:
        ValueError: not a GenieRedux-G checkpoint, made for other frames or actions, or for clips shorter than a window.
    """
    described = describe_checkpoint(checkpoint)
    require_fit(f"checkpoint {checkpoint}", described, frame_size=frame_size, action_names=action_names)
    return described["version"]


def require_fit(name: str, described: Mapping[str, Any], *, frame_size: int, action_names: Sequence[str]) -> None:
    """Raises ValueError unless the description of a checkpoint or service fits these frames and actions."""
    wanted = {"frame_size": frame_size, "num_actions": len(action_names), "action_names": list(action_names)}
    for key, value in wanted.items():
        # Where the action names are unknown, the right number of actions is enough.
        if described[key] != value and described[key] not in (
            None,
            [str(number) for number in range(len(action_names))],
        ):
            raise ValueError(f"{name} has {key} {described[key]}; the environments have {value}")


def replica_settings(
    checkpoint: Location, config: RewardConfig, *, version: str, state: Location | None
) -> dict[str, Any]:
    """The replicas' settings.

    Raises:
        ValueError: a stateful reward has no state directory, or the reward cannot judge frames of this size.
    """
    if config.stateful and state is None:
        raise ValueError(f"no state directory; needed by {config.reason}")
    frame_size = describe_checkpoint(checkpoint)["frame_size"]
    if config.kind in ("rf", "vae") and frame_size % STRIDE:
        raise ValueError(f"frame size is {frame_size}; allowed with kind {config.kind!r}: multiples of {STRIDE}")
    return {
        "checkpoint": str(resolve(checkpoint)),
        "version": version,
        "config": dataclasses.asdict(config),
        "state": None if state is None else str(resolve(state)),
        "gpus": replica_gpus(config),
    }


def bind(config: RewardConfig, settings: dict[str, Any], *places: Location | None) -> serve.Application:
    """The deployment as Serve runs it.

    Args:
        places: where its checkpoint and state are; replicas reach object stores as these do. Not among the settings,
            which Serve shows to everybody who asks: they may hold credentials.
    """
    there = [resolve(place) for place in places if place is not None]
    stores = {place.scheme: place.filesystem for place in there if isinstance(place, RemotePath)}
    if config.max_replicas is None:
        replicas: dict[str, Any] = {"num_replicas": config.replicas}
    else:
        replicas = {
            "autoscaling_config": {
                "min_replicas": config.replicas,
                "max_replicas": config.max_replicas,
                "target_ongoing_requests": REQUESTS_PER_REPLICA,
            }
        }
    return (
        serve.deployment(RewardModel, name=DEPLOYMENT)
        .options(
            **replicas,
            ray_actor_options={"num_cpus": config.cpus, "num_gpus": settings["gpus"]},
            max_ongoing_requests=MAX_ONGOING,
            max_queued_requests=config.max_waiting,
            health_check_period_s=HEALTH_CHECK_S,
            user_config=settings,
            **deployment_version(__version__),
        )
        .bind(stores)
    )


def check_cluster(config: RewardConfig) -> None:
    """Checks that the cluster has room for the replicas.

    Raises:
        RuntimeError: not connected to a cluster.
        ValueError: the cluster lacks CPUs or GPUs.
    """
    if not ray.is_initialized():
        raise RuntimeError("no Ray: connect to a cluster before starting the reward service")
    for resource, wanted in (("CPU", config.cpus * config.replicas), ("GPU", replica_gpus(config) * config.replicas)):
        there = ray.cluster_resources().get(resource, 0)
        if wanted > there:
            raise ValueError(f"the reward service needs {wanted:g} {resource}s; the cluster has {there:g}")


def replica_gpus(config: RewardConfig) -> float:
    """GPUs per replica; if the config leaves it open, one if the cluster has one for each, else none."""
    if config.gpus is not None:
        return config.gpus
    most = config.max_replicas or config.replicas
    return 1.0 if ray.cluster_resources().get("GPU", 0) >= most else 0.0
