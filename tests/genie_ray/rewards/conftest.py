"""Two world models with random weights, their checkpoints, and a service that judges with one of them."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from genie_ray.rewards.http.api import HttpConfig
from genie_ray.rewards.http.serving import http_service
from genie_ray.rewards.service import find_service
from tests.genie_ray.rewards.small_world import APP, FITS, SERVED, TOKEN, Factory, world_model
from world_model.checkpoint import save
from world_model.genie import GenieReduxG


@pytest.fixture(scope="module")
def models() -> list[GenieReduxG]:
    return [world_model(seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def checkpoints(models: list[GenieReduxG], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("world_models")
    for number, model in enumerate(models):
        save(model, root / str(number), provenance={})
    return [root / "0", root / "1"]


@pytest.fixture(scope="module")
def url(checkpoints: list[Path], ray_session: None) -> Iterator[str]:
    """One Serve per module, with HTTP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    http = HttpConfig(port=port, max_request_mb=1, token=TOKEN)
    with http_service(checkpoints[0], SERVED, http, app_name=APP) as url:
        yield url


@pytest.fixture(scope="module")
def factory(url: str) -> Factory:
    """Makes clients that ask by handle."""
    return find_service(APP, **FITS)
