"""A local Ray as this project starts it."""

import os
import subprocess
import sys
import tempfile

import pytest

from genie_ray.base.session import SOCKET, SOCKET_BYTES, RayConfig, check_local

WORKERS_SEE = """
import os, ray
from genie_ray.base.session import ray_session
with ray_session():
    print(ray.get(ray.remote(lambda: os.environ.get("OMP_WAIT_POLICY")).remote()))
"""


def wait_policy(**environment: str) -> str:
    """How the threads of a local Ray's workers wait, if the command runs with this environment."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "OMP_"))}
    run = subprocess.run(
        [sys.executable, "-c", WORKERS_SEE], env=own | environment, capture_output=True, text=True, check=True
    )
    return run.stdout.split()[-1]


def test_threads_that_wait_leave_the_cores_to_others_unless_told_otherwise() -> None:
    assert wait_policy() == "passive"
    assert wait_policy(OMP_WAIT_POLICY="active") == "active"


def test_the_longest_directory_allowed_works_and_a_longer_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = SOCKET_BYTES - len(SOCKET)
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="x" * (longest - len("/tmp/") - 8)) as directory:
        assert len(directory) == longest
        assert wait_policy(RAY_TMPDIR=directory) == "passive"
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * 80)
    with pytest.raises(ValueError, match=rf"^RAY_TMPDIR has 81 bytes: must have at most {longest}, because"):
        check_local(RayConfig())


def test_an_object_store_larger_than_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    check_local(RayConfig())
    with pytest.raises(ValueError, match=r"^ray.object_store_mb = 900000000: must be below .* memory"):
        check_local(RayConfig(object_store_mb=900_000_000))
