"""A local Ray as this project starts it."""

import os
import subprocess
import sys

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
