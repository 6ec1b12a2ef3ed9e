"""Starting the reward service on a Ray cluster, giving it other weights while it runs, finding one that runs.

Weights change without a restart (`RewardService.swap`). Each answer carries the version that it was made with. A
checkpoint that is served must stay as it is: a replica that restarts reads it again, and refuses it if it changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

from genie_ray import __version__
from genie_ray.rewards.client import APP_NAME, DEPLOYMENT, UNAVAILABLE, ServeRewardClient, one_line
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.replica import RewardModel
from policies.baselines.curiosity import STRIDE
from world_model.checkpoint import read_config, require_kind
from world_model.genie import GenieReduxG

MAX_ONGOING = 32  # requests in one replica: the next batches gather there
REQUESTS_PER_REPLICA = 4.0  # in flight, above which replicas are added
HEALTH_CHECK_S = 2.0  # a dead replica is replaced after at most that
FIND_TIMEOUT_S, SAVE_TIMEOUT_S = 30.0, 60.0
QUIET = {"log_level": "WARNING", "enable_access_log": False}


@dataclass(frozen=True, kw_only=True)
class RewardService:
    """A service that runs: a picklable factory of its clients (a `policies.rewards.RewardClientFactory`)."""

    config: RewardConfig
    frame_size: int
    num_actions: int
    state: str | None
    app_name: str

    def __call__(self) -> ServeRewardClient:
        """A client, in whatever process of the cluster."""
        return ServeRewardClient(self.app_name)

    def swap(self, checkpoint: str | Path) -> str:
        """Gives all replicas another checkpoint, waits until they have it, and returns its version.

        Requests that arrived before are answered with the old one.

        Raises:
            ValueError: the checkpoint does not fit.
            RuntimeError: the replicas do not take it.
        """
        version = check_checkpoint(checkpoint, frame_size=self.frame_size, num_actions=self.num_actions)
        deploy(checkpoint, self.config, version=version, state=self.state, app_name=self.app_name)
        return version


def check_checkpoint(checkpoint: str | Path, *, frame_size: int, num_actions: int) -> str:
    """Refuses, before anything starts, a checkpoint that cannot judge these environments; returns its weights' hash.

    Raises:
        ValueError: not a GenieRedux-G checkpoint, or made for other frames or actions.
    """
    description = require_kind(GenieReduxG, checkpoint)
    config = description["config"]
    for name, made_for, wanted in (
        ("frame size", config["tokenizer"]["frame_size"], frame_size),
        ("number of actions", config["dynamics"]["num_actions"], num_actions),
    ):
        if made_for != wanted:
            raise ValueError(f"checkpoint {checkpoint} has {name} {made_for}; the environments have {wanted}")
    return description["weights_sha256"]


def bind(checkpoint: str | Path, config: RewardConfig, *, version: str, state: str | Path | None) -> serve.Application:
    """The deployment as Serve runs it, with what its replicas are told."""
    if config.stateful and state is None:
        reason = "episodic_novelty" if config.episodic_novelty else f"kind {config.kind!r}"
        raise ValueError(f"no state directory; needed by {reason}")
    frame_size = read_config(GenieReduxG, checkpoint).tokenizer.frame_size
    if config.kind in ("rf", "vae") and frame_size % STRIDE:
        raise ValueError(f"frame size is {frame_size}; allowed with kind {config.kind!r}: multiples of {STRIDE}")
    gpus = replica_gpus(config)
    user_config = {
        "checkpoint": str(Path(checkpoint).absolute()),
        "version": version,
        "config": dataclasses.asdict(config),
        "state": None if state is None else str(Path(state).absolute()),
        "gpus": gpus,
    }
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
            ray_actor_options={"num_cpus": config.cpus, "num_gpus": gpus},
            max_ongoing_requests=MAX_ONGOING,
            max_queued_requests=config.max_waiting,
            health_check_period_s=HEALTH_CHECK_S,
            user_config=user_config,
            # Without a version, which counts as internal, Serve takes each run for new code and replaces replicas.
            version=__version__,
            _internal=True,
        )
        .bind()
    )


def deploy(
    checkpoint: str | Path,
    config: RewardConfig,
    *,
    version: str,
    state: str | Path | None = None,
    app_name: str = APP_NAME,
) -> None:
    """Starts the service, or gives a running one another checkpoint and config (its replicas stay as they are).

    Raises:
        ValueError: a reward that remembers has no state directory.
        RuntimeError: the replicas do not come up.
    """
    app = bind(checkpoint, config, version=version, state=state)
    serve.start(proxy_location="Disabled", logging_config=QUIET)
    try:
        serve.run(app, name=app_name, route_prefix=None, logging_config=QUIET)
    except RuntimeError as error:
        raise RuntimeError(f"reward service {app_name!r} does not start: {one_line(error)}") from error


@contextmanager
def reward_service(
    checkpoint: str | Path,
    config: RewardConfig,
    *,
    frame_size: int,
    num_actions: int,
    state: str | Path | None = None,
    app_name: str = APP_NAME,
) -> Iterator[RewardService]:
    """Runs the service for a `with` block on the Ray cluster that this process is connected to.

    A service of that name that runs already is given this checkpoint and config, and is left running at the end.

    Args:
        checkpoint: a GenieRedux-G checkpoint, readable on every node that may hold a replica.
        config: reward and resources.
        frame_size: height and width of the environments' frames.
        num_actions: number of the environments' actions.
        state: directory for what rewards remember; those that do need one, readable where the replica runs.
        app_name: name of the Serve application.

    Raises:
        ValueError: the checkpoint does not fit, or the cluster lacks what the replicas need.
        RuntimeError: the replicas do not come up.
    """
    version = check_checkpoint(checkpoint, frame_size=frame_size, num_actions=num_actions)
    check_cluster(config)
    was_running = app_name in serve.status().applications
    service = RewardService(
        config=config,
        frame_size=frame_size,
        num_actions=num_actions,
        state=None if state is None else str(state),
        app_name=app_name,
    )
    with start_serve():
        try:
            deploy(checkpoint, config, version=version, state=state, app_name=app_name)
            yield service
            if config.stateful:
                service().handle.save.remote().result(timeout_s=SAVE_TIMEOUT_S)
        finally:
            if not was_running:
                serve.delete(app_name)


@contextmanager
def start_serve() -> Iterator[None]:
    """Ray Serve for a `with` block: started, and shut down at the end, unless it runs already."""
    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        serve.start(proxy_location="Disabled", logging_config=QUIET)
        try:
            yield
        finally:
            serve.shutdown()
    else:
        yield


def find_service(app_name: str, *, frame_size: int, num_actions: int) -> Callable[[], ServeRewardClient]:
    """A factory of clients of a service that runs already.

    Raises:
        ValueError: there is none on this cluster, or it judges other frames or actions.
    """
    try:
        served = ServeRewardClient(app_name).handle.describe.remote().result(timeout_s=FIND_TIMEOUT_S)
    except UNAVAILABLE as error:
        running = ", ".join(sorted(serve.status().applications)) or "none"
        raise ValueError(f"no reward service {app_name!r} on this cluster; running: {running}") from error
    check_fit(app_name, served, frame_size=frame_size, num_actions=num_actions)
    return partial(ServeRewardClient, app_name)


def check_fit(name: str, served: dict[str, Any], *, frame_size: int, num_actions: int) -> None:
    """Raises ValueError unless a service, by its description, judges such frames and actions."""
    for key, wanted in (("frame_size", frame_size), ("num_actions", num_actions)):
        if served[key] != wanted:
            raise ValueError(f"reward service {name!r} has {key} {served[key]}; the environments have {wanted}")


def check_cluster(config: RewardConfig) -> None:
    """Refuses replicas for which the cluster is too small.

    Raises:
        RuntimeError: not connected to a cluster.
        ValueError: it lacks what the replicas need.
    """
    if not ray.is_initialized():
        raise RuntimeError("no Ray: connect to a cluster before starting the reward service")
    for resource, wanted in (("CPU", config.cpus * config.replicas), ("GPU", replica_gpus(config) * config.replicas)):
        there = ray.cluster_resources().get(resource, 0)
        if wanted > there:
            raise ValueError(f"the reward service wants {wanted:g} {resource}s; the cluster has {there:g}")


def replica_gpus(config: RewardConfig) -> float:
    """GPUs of each replica; where the config leaves it open, one if the cluster has one for each, else none."""
    if config.gpus is not None:
        return config.gpus
    most = config.max_replicas or config.replicas
    return 1.0 if ray.cluster_resources().get("GPU", 0) >= most else 0.0
