"""A local Ray as this project starts it, and what it may use of the machine."""

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from genie_ray.base import session
from genie_ray.base.session import (
    SOCKET,
    SOCKET_BYTES,
    RayConfig,
    check_local,
    memory_bytes,
    peak_memory_bytes,
    usable_cpus,
)

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


def test_a_ray_that_does_not_start_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(**arguments: object) -> None:
        raise Exception("The current node timed out during startup.\nThe GCS may be overloaded.")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr(session, "start_local_ray", late)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ValueError, match=r"^no local Ray starts here: The current node timed out .* be overloaded\.$"):
        session.ray_session().__enter__()


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The control groups of a machine with 16 CPUs; a test writes what its container may use."""
    monkeypatch.setattr(session, "CGROUPS", tmp_path)
    monkeypatch.setattr(session, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    return tmp_path


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


@pytest.mark.parametrize(
    ("own", "limits", "cpus"),
    [
        ("0::/", {}, 16),  # affinity alone
        ("0::/", {"cpu.max": "max 100000"}, 16),
        ("0::/", {"cpu.max": "250000 100000"}, 3),  # two and a half
        ("0::/", {"cpu.max": "10000 100000"}, 1),
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2),  # the group above is limited
        ("0::/seen/from/outside", {"cpu.max": "400000 100000"}, 4),  # a container sees itself as the topmost
        ("0::/", {"cpu.max": "9900000 100000"}, 16),  # a quota above what there is
        (
            "5:cpu,cpuacct:/docker/x\n4:memory:/",
            {"cpu/docker/x/cpu.cfs_quota_us": "300000", "cpu/docker/x/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("5:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 16),
    ],
)
def test_cpus_are_those_that_the_process_may_use(container: Path, own: str, limits: dict[str, str], cpus: int) -> None:
    put(container / "own", own)
    for name, text in limits.items():
        put(container / name, text)
    assert usable_cpus() == cpus
    assert RayConfig().torch_threads(2) == max(1, cpus // 2)


def test_without_affinity_or_control_groups_it_may_use_all(container: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert usable_cpus() == 64


def test_memory_is_what_the_container_may_have(container: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = memory_bytes()
    put(container / "own", "0::/x")
    put(container / "x/memory.max", "max")
    assert memory_bytes() == machine
    put(container / "memory.max", str(2**30))
    assert memory_bytes() == 2**30
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    with pytest.raises(ValueError, match=r"must be below the memory of this machine or container, 1024 MB"):
        check_local(RayConfig(object_store_mb=1024))
    put(container / "own", "4:memory:/x")
    put(container / "memory/x/memory.limit_in_bytes", str(2**20))
    assert memory_bytes() == 2**20


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="there is no affinity to set")
def test_a_process_that_is_held_to_one_cpu_counts_one() -> None:
    code = (
        "from genie_ray.base.session import RayConfig, usable_cpus; print(usable_cpus(), RayConfig().torch_threads(1))"
    )
    one = min(os.sched_getaffinity(0))
    run = subprocess.run(
        [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{one}}}); {code}"], capture_output=True, text=True
    )
    assert run.stdout == "1 1\n", run.stderr


@pytest.mark.parametrize(("platform", "size"), [("linux", 3 * 2**20), ("darwin", 3 * 2**10)])
def test_peak_memory_is_in_bytes_everywhere(platform: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=3 * 2**10))
    assert peak_memory_bytes() == size


def test_windows_is_refused_in_one_line() -> None:
    code = "import sys; sys.platform = 'win32'; import genie_ray.cli"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode != 0
    assert run.stderr.splitlines()[-1] == (
        "ImportError: GenieRay does not run on Windows: use Linux, macOS or the Windows Subsystem for Linux"
    )
