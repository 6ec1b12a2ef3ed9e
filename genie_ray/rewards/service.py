"""Starting the reward service on a Ray cluster, swapping its weights while it runs, and finding a running one.

Each run has its own service. Weights change without a restart (`RewardService.swap`); each answer carries the version
that produced it. A checkpoint must not change while it is served: a restarted replica reads it again, and refuses it if
it has changed.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from ray import serve
from ray.exceptions import RayTaskError

from genie_ray.base.errors import cause_of, one_line
from genie_ray.rewards.client import APP_NAME, ServeRewardClient
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.deployment import bind, check_checkpoint, check_cluster, replica_settings, require_fit
from genie_ray.storage.paths import Location, StoredPath, resolve
from policies.errors import last_line
from policies.ray_internals import serve_runs
from policies.rewards import RewardUnavailableError

FIND_TIMEOUT_S, SAVE_TIMEOUT_S, SWAP_TIMEOUT_S = 30.0, 60.0, 300.0
QUIET = {"log_level": "WARNING", "enable_access_log": False}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RewardService:
    """A running service: a picklable factory of its clients (a `policies.rewards.RewardClientFactory`)."""

    config: RewardConfig
    frame_size: int
    action_names: tuple[str, ...]
    state: StoredPath | None
    app_name: str

    def __getstate__(self) -> dict[str, Any]:
        """Without its state's place, which may come with credentials: a training's states hold this factory."""
        return self.__dict__ | {"state": None}

    def __call__(self) -> ServeRewardClient:
        """A client, in any process of the cluster."""
        return ServeRewardClient(self.app_name)

    def swap(self, checkpoint: Location) -> str:
        """Gives all replicas another checkpoint, waits until they have it, and returns its version.

        Requests that arrived earlier are answered with the old one.

        Raises:
            ValueError: the checkpoint does not fit or cannot be loaded; the old one stays in use.
            RewardUnavailableError: the service does not answer in time.
            RuntimeError: the replicas do not come up with the new one.
        """
        version = check_checkpoint(checkpoint, frame_size=self.frame_size, action_names=self.action_names)
        settings = replica_settings(checkpoint, self.config, version=version, state=self.state)
        try:  # Serve would kill replicas that fail to load it
            self().ask("rehearse", settings, timeout_s=SWAP_TIMEOUT_S)
        except RayTaskError as error:
            reason = one_line(cause_of(error))
            raise ValueError(f"reward service {self.app_name!r} keeps its current weights: {reason}") from error
        deploy(bind(self.config, settings, checkpoint, self.state), self.app_name)
        return version


def deploy(app: serve.Application, app_name: str) -> None:
    """Starts a service, or gives a running one new settings (its replicas are not restarted).

    Raises:
        RuntimeError: the replicas do not come up.
    """
    serve.start(proxy_location="Disabled", logging_config=QUIET)
    try:
        serve.run(app, name=app_name, route_prefix=None, logging_config=QUIET)
    except RuntimeError as error:
        raise RuntimeError(f"reward service {app_name!r} does not start: {last_line(error)}") from error


@contextmanager
def reward_service(
    checkpoint: Location,
    config: RewardConfig,
    *,
    frame_size: int,
    action_names: Sequence[str],
    state: Location | None = None,
    app_name: str | None = None,
) -> Iterator[RewardService]:
    """Runs the service for a `with` block on the Ray cluster that this process is connected to.

    Args:
        checkpoint: a GenieRedux-G checkpoint, readable on every node that may run a replica.
        config: reward and resources.
        frame_size: height and width of the environments' frames.
        action_names: the environments' actions, in order.
        state: directory for what the reward remembers, readable where the replica runs; required by stateful rewards.
        app_name: name of the Serve application; by default a unique one.

    Raises:
        ValueError: the checkpoint does not fit, the cluster lacks what the replicas need, or the name is taken.
        RuntimeError: the replicas do not come up.
    """
    version = check_checkpoint(checkpoint, frame_size=frame_size, action_names=action_names)
    check_cluster(config)
    name = app_name or f"{APP_NAME}-{uuid.uuid4().hex[:8]}"
    if name in serve.status().applications:
        raise ValueError(
            f"{name!r} already runs on this cluster: pass it as --reward-service, or give another app_name"
        )
    app = bind(config, replica_settings(checkpoint, config, version=version, state=state), checkpoint, state)
    with start_serve():
        try:
            deploy(app, name)
            try:
                yield RewardService(
                    config=config,
                    frame_size=frame_size,
                    action_names=tuple(action_names),
                    state=None if state is None else resolve(state),
                    app_name=name,
                )
            finally:
                save_memory(name, config)
        finally:
            serve.delete(name)


def save_memory(app_name: str, config: RewardConfig) -> None:
    """Makes a stateful service write its state; logs a warning if that fails."""
    if not config.stateful:
        return
    try:
        ServeRewardClient(app_name).ask("save", timeout_s=SAVE_TIMEOUT_S)
    except (RewardUnavailableError, RayTaskError) as error:
        logger.warning("reward service %r did not save its state: %s", app_name, last_line(error))


@contextmanager
def start_serve() -> Iterator[None]:
    """Ray Serve for a `with` block; shut down at the end if it was started here and no application is left."""
    if serve_runs():
        yield
        return
    serve.start(proxy_location="Disabled", logging_config=QUIET)
    try:
        yield
    finally:
        shut_down_if_idle()


def service_name(directory: StoredPath) -> str:
    """Name, or common prefix, of the reward services of the run in a directory; no other run's names begin with it."""
    return f"{APP_NAME}-{hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:8]}"


def remove_services(prefix: str) -> bool:
    """Removes the services whose names begin with `prefix`: those of a killed run would keep their replicas forever.

    Returns whether there was one.
    """
    left = [name for name in serve.status().applications if name.startswith(prefix)]
    for name in left:
        serve.delete(name)
    return bool(left)


def remove_what_was_left(prefix: str) -> None:
    """As `remove_services`, and stops Serve if that killed run's were its only applications.

    Whoever finds Serve running leaves it running, so it would stay forever.
    """
    if remove_services(prefix):
        shut_down_if_idle()


def shut_down_if_idle() -> None:
    """Stops Ray Serve unless an application is running on it."""
    if not serve.status().applications:
        serve.shutdown()


def find_service(
    app_name: str, *, frame_size: int, action_names: Sequence[str], asked_again: bool = False
) -> Callable[[], ServeRewardClient]:
    """A factory of clients for a service that is already running.

    Args:
        asked_again: whether it will judge the same play more than once.

    Raises:
        ValueError: this cluster has no such service, or it judges other frames or actions, must not judge play twice,
            or does not answer.
    """
    if app_name not in (running := serve.status().applications):
        raise ValueError(
            f"no reward service {app_name!r} on this cluster; running: {', '.join(sorted(running)) or 'none'}"
        )
    try:
        described = ServeRewardClient(app_name).ask("describe", timeout_s=FIND_TIMEOUT_S)
    except RewardUnavailableError as error:
        status = running[app_name].status.value
        raise ValueError(f"reward service {app_name!r} exists ({status}) but is busy or restarting: {error}") from error
    require_fit(f"reward service {app_name!r}", described, frame_size=frame_size, action_names=action_names)
    if asked_again and described["remembers"]:
        raise ValueError(
            f"exploration.learning.old_rewards = 'ask': reward service {app_name!r} remembers play (kind "
            f"{described['kind']!r}, novelty {described['novelty']!r}), so it must see it only once: use 'mark'"
        )
    return partial(ServeRewardClient, app_name)
