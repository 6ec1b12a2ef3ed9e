"""Running the reward service for programs outside the cluster, too: http.py in front of what service.py runs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ray import serve

from genie_ray.rewards.client import APP_NAME, one_line
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.http import HttpConfig, RewardApi
from genie_ray.rewards.service import QUIET, bind, check_cluster
from world_model.checkpoint import require_kind
from world_model.genie import GenieReduxG

MAX_ONGOING = 128  # requests that are read or wait at once


@contextmanager
def http_service(
    checkpoint: str | Path,
    config: RewardConfig,
    http: HttpConfig,
    *,
    state: str | Path | None = None,
    app_name: str = APP_NAME,
) -> Iterator[str]:
    """Runs the service, reachable over HTTP and by handle, for a `with` block; yields its URL.

    Args:
        checkpoint: a GenieRedux-G checkpoint, readable on every node that may hold a replica.
        config: reward and resources.
        http: where it listens.
        state: directory for what rewards remember; those that do need one.
        app_name: name of the Serve application, for clients inside the cluster.

    Raises:
        ValueError: the checkpoint, the cluster or the port cannot be used, or Serve runs already on this cluster.
        RuntimeError: the replicas do not come up.
    """
    version = require_kind(GenieReduxG, checkpoint)["weights_sha256"]
    check_cluster(config)
    model = bind(checkpoint, config, version=version, state=state)
    if running := sorted(serve.status().applications):
        raise ValueError(f"this cluster's Serve already runs {', '.join(running)}; stop it before serving over HTTP")
    _check_port(http)
    try:
        serve.start(
            proxy_location="HeadOnly", http_options={"host": http.host, "port": http.port}, logging_config=QUIET
        )
        try:
            api = serve.deployment(RewardApi, ray_actor_options={"num_cpus": 0}, max_ongoing_requests=MAX_ONGOING)
            serve.run(api.bind(model, http), name=app_name, route_prefix="/", logging_config=QUIET)
        except RuntimeError as error:
            raise RuntimeError(f"reward service {app_name!r} does not start: {one_line(error)}") from error
        yield f"http://{http.host}:{http.port}"
    finally:
        serve.shutdown()


def _check_port(http: HttpConfig) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((http.host, http.port))
        except OSError as error:
            raise ValueError(f"cannot listen on {http.host}:{http.port}: {error.strerror}") from error
