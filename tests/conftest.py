"""Fixtures for all tests. Ray is imported by the one that starts it, so that tests without it start at once."""

import os
from collections.abc import Iterator

import pytest

from genie_ray.base.session import PATIENT
from genie_ray.games.roms import import_from_ale

os.environ.update(PATIENT)  # before anything imports PyTorch: two test processes share two cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the files that have slow tests, whole runs before parts: then several processes end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, len(item.path.parts)))


@pytest.fixture(scope="session")
def roms() -> list[str]:
    """The games whose ROMs come with ale-py, imported."""
    return import_from_ale()


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray on this machine for the whole session: six logical CPUs, no dashboard."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    import ray

    ray.init(address="local", num_cpus=6, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
