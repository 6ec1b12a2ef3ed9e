"""A cluster of several nodes for tests, and drivers on it that may be killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DEADLINE_S = 300
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
ROOT = Path(__file__).parents[2]
OF_JOBS = os.environ | {
    "RAY_AUTH_MODE": "disabled",
    "PYTHONPATH": str(ROOT),
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}
"""The environment of what submits jobs, and of the cluster that runs them."""


class Nodes:
    """The cluster of nodes.py."""

    def __init__(self) -> None:
        script = str(Path(__file__).parent / "nodes.py")
        self._process = subprocess.Popen(
            [sys.executable, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = self._answer()

    def add(self) -> int:
        """Starts a node; returns the process id of its raylet."""
        return int(self._ask("add"))

    def remove(self, raylet: int) -> None:
        self._ask(f"remove {raylet}")

    def warn(self, raylet: int) -> None:
        """Tells Ray that the node will be taken away in a minute."""
        assert self._ask(f"warn {raylet}").startswith("(True")

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=DEADLINE_S)

    def _ask(self, command: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().strip()
        assert answer, "the cluster broke down"
        return answer


def start(command: list[str]) -> subprocess.Popen[str]:
    """A Python command in a process that may be killed."""
    return subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )


def wait_for(condition: Callable[[], object], driver: subprocess.Popen[str]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def contents(root: Path) -> dict[str, bytes]:
    """The files below a directory, by their path in it."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@contextmanager
def job_server(nodes: int) -> Iterator[str]:
    """The cluster that clusters/local.py starts, with a head and nodes of one CPU; its job server."""
    port = str(20_000 + os.getpid() % 10_000)
    script = [sys.executable, "clusters/local.py", "--nodes", str(nodes), "--cpus", "1", "--port", port]
    process = subprocess.Popen(
        [*script, "--memory-mb", "80"], env=OF_JOBS, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(f"{nodes} nodes of 1 CPUs")
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGINT)
    process.wait(30)
    shutil.rmtree(f"/tmp/ray-{port}")
