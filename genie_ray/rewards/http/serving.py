"""Running the reward service over HTTP: api.py in front of the same deployment that service.py runs."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import serve

from genie_ray.base.settings import build, check_unchanged, keep_settings, to_dict
from genie_ray.rewards.client import APP_NAME
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.deployment import bind, check_cluster, replica_settings
from genie_ray.rewards.http.api import TOKEN_VARIABLE, HttpConfig, RewardApi
from genie_ray.rewards.service import QUIET, save_memory, shut_down_if_idle
from genie_ray.rewards.state import describe_checkpoint
from policies.errors import last_line
from policies.ray_internals import serve_runs

MAX_ONGOING = 32  # requests read or waiting at once; as many more may queue, the rest are rejected
HEALTH_TIMEOUT_S = 10.0
FREE = tuple(
    f"reward.{name}:"
    for name in ("batch_size", "precision", "replicas", "max_replicas", "max_waiting", "cpus", "gpus", "threads")
)
"""Settings that may change without losing what the reward remembers."""


@contextmanager
def http_service(
    checkpoint: str | Path,
    config: RewardConfig,
    listen: HttpConfig,
    *,
    state: str | Path | None = None,
    app_name: str = APP_NAME,
) -> Iterator[str]:
    """Runs the service, reachable over HTTP and by handle, for a `with` block; yields its URL.

    Args:
        checkpoint: a GenieRedux-G checkpoint, readable on every node that may run a replica.
        config: reward and resources.
        listen: address, limits and token.
        state: directory for what the reward remembers; required by stateful rewards.
        app_name: name of the Serve application, for clients inside the cluster.

    Raises:
        ValueError: the checkpoint, the reward, the cluster or the port cannot be used, Serve is already running, or
            `state` belongs to another world model or reward.
        RuntimeError: the replicas do not start, or nothing answers at the address.
    """
    if config.kind == "learning_progress":
        raise ValueError(
            "reward.kind is 'learning_progress', which rewards weight swaps: this service never swaps its weights"
        )
    version = describe_checkpoint(checkpoint)["version"]
    check_cluster(config)
    settings = {"world_model": version, "reward": to_dict(config)}
    if state is not None:
        check_unchanged(Path(state), settings, free=FREE, what="a reward's memory", advice="give another --state")
        keep_settings(Path(state), settings)
    model = bind(config, replica_settings(checkpoint, config, version=version, state=state))
    if serve_runs():  # with its own HTTP settings, which cannot be changed
        running = ", ".join(sorted(serve.status().applications)) or "nothing"
        raise ValueError(f"Ray Serve already runs on this cluster (applications: {running}): `serve shutdown` stops it")
    _check_port(listen)
    try:
        serve.start(
            proxy_location="HeadOnly", http_options={"host": listen.host, "port": listen.port}, logging_config=QUIET
        )
        try:
            serve.run(_bind_api(model, listen), name=app_name, route_prefix="/", logging_config=QUIET)
        except RuntimeError as error:
            raise RuntimeError(f"reward service {app_name!r} does not start: {last_line(error)}") from error
        try:
            _check_health(listen)
            yield f"http://{f'[{listen.host}]' if ':' in listen.host else listen.host}:{listen.port}"
        finally:
            save_memory(app_name, config)
    finally:
        serve.delete(app_name)
        shut_down_if_idle()


def application(arguments: dict[str, Any]) -> serve.Application:
    """The service for a Serve config file, as KubeRay's RayService runs one (`clusters/kuberay/rayservice.yaml`).

    Where it listens is up to Serve, so it always wants a token.

    Args:
        arguments: `world_model`, a checkpoint that every node can read; maybe `reward`, settings as in any preset, and
            `max_request_mb`.

    Raises:
        ValueError: an argument is missing, unknown or out of range, or there is no token.
    """
    if unknown := arguments.keys() - {"world_model", "reward", "max_request_mb"}:
        raise ValueError(f"unknown argument {min(unknown)!r}; allowed: world_model, reward, max_request_mb")
    if "world_model" not in arguments:
        raise ValueError("world_model is missing: the checkpoint that rewards come from")
    config = build(RewardConfig, arguments.get("reward") or {}, "reward.")
    listen = HttpConfig(
        host="0.0.0.0",
        max_request_mb=int(arguments.get("max_request_mb", HttpConfig.max_request_mb)),
        token=os.environ.get(TOKEN_VARIABLE),
    )
    version = describe_checkpoint(arguments["world_model"])["version"]
    settings = replica_settings(arguments["world_model"], config, version=version, state=None)
    return _bind_api(bind(config, settings), listen)


def _bind_api(model: serve.Application, listen: HttpConfig) -> serve.Application:
    api = serve.deployment(
        RewardApi,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=MAX_ONGOING,
        max_queued_requests=MAX_ONGOING,
    )
    return api.bind(model, listen)


def _check_health(listen: HttpConfig) -> None:
    connection = http.client.HTTPConnection(listen.host, listen.port, timeout=HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", "/-/healthz")
        if (status := connection.getresponse().status) != http.HTTPStatus.OK:
            raise RuntimeError(f"{listen.host}:{listen.port} answers with status {status}")
    except (OSError, http.client.HTTPException) as error:
        raise RuntimeError(f"nothing answers at {listen.host}:{listen.port}: {last_line(error)}") from error
    finally:
        connection.close()


def _check_port(listen: HttpConfig) -> None:
    with socket.socket(socket.AF_INET6 if ":" in listen.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, listen.port))
        except OSError as error:
            raise ValueError(f"cannot listen on {listen.host}:{listen.port}: {error.strerror}") from error
