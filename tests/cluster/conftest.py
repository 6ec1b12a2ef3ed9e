"""The cluster of these tests."""

from collections.abc import Iterator

import pytest

from tests.cluster.running import Nodes


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    nodes.stop()
