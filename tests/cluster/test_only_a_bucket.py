"""Nodes that share nothing but an object store: each has its own file system where it could leave something behind."""

import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from genie_ray.base.metrics_log import read_metrics
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.verify import verify
from genie_ray.storage import checkpoints
from genie_ray.storage.paths import RemotePath, resolve
from tests.cluster.running import DEADLINE_S, ENVIRONMENT, ROOT
from tests.genie_ray.s3 import s3_bucket

SMOKE = ROOT / "experiments" / "smoke.yaml"
APART = ["unshare", "--map-root-user", "--mount"]  # a process with mounts of its own


@dataclass
class Machines:
    """A head without CPUs and nodes of one CPU, each with an empty file system of its own at the same path."""

    private: Path
    port: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "XDG_"))}
        there = {"HOME": str(self.private), "TMPDIR": str(self.private), "PYTHONPATH": str(ROOT)}
        return kept | ENVIRONMENT | there | {"OMP_WAIT_POLICY": "passive", "RAY_USAGE_STATS_ENABLED": "0"}

    def start(self, kind: str) -> None:
        program = [sys.executable, "-m", "tests.cluster.machine", str(self.private), str(self.port), kind]
        mount = f"mount -t tmpfs tmpfs {self.private} && cd {self.private} && exec "
        output = subprocess.DEVNULL
        command = [*APART, "sh", "-c", mount + shlex.join(program)]
        self.processes.append(subprocess.Popen(command, env=self.environment, stdout=output, stderr=output))

    def wait_for_the_head(self) -> None:
        end = time.monotonic() + DEADLINE_S
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.processes[0].poll() is None
            assert time.monotonic() < end
            time.sleep(0.2)

    def run(self, log: Path, *arguments: str) -> str:
        """A command on the head; returns what it printed."""
        command = shlex.join([sys.executable, "-m", "genie_ray", *arguments, "--address", f"127.0.0.1:{self.port}"])
        with log.open("wb") as output:
            ended = subprocess.run(
                [*self.inside(0), "sh", "-c", f"cd {self.private} && exec {command}"],
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=6 * DEADLINE_S,
                check=False,
            )
        assert ended.returncode == 0, log.read_text()[-3000:]
        return log.read_text()

    def inside(self, number: int) -> list[str]:
        """Runs a command in the file system of a machine; 0 is the head."""
        target = f"--target={self.processes[number].pid}"
        return ["nsenter", "--user", "--preserve-credentials", "--mount", target]

    def ran(self, number: int, actor: str) -> bool:
        """Whether an actor of this class ran there: its log, in the machine's own file system, says so."""
        command = [*self.inside(number), "grep", "-rq", f"actor_name:{actor}", str(self.private)]
        return subprocess.run(command, check=False).returncode == 0


@pytest.fixture
def machines() -> Iterator[Machines]:
    if subprocess.run([*APART, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no mounts of a process's own")
    with socket.socket() as probe, tempfile.TemporaryDirectory(dir="/tmp", prefix="n") as private:  # a short path
        probe.bind(("127.0.0.1", 0))
        machines = Machines(Path(private), probe.getsockname()[1])
        probe.close()
        machines.start("head")
        machines.wait_for_the_head()
        for _ in range(2):
            machines.start("node")
        yield machines
        for process in reversed(machines.processes):
            process.terminate()
            process.wait(DEADLINE_S)
        assert list(Path(private).iterdir()) == []  # nothing came out of the machines


@pytest.mark.long
def test_a_loop_on_nodes_that_share_a_bucket_alone(machines: Machines, roms: list[str], tmp_path: Path) -> None:
    with s3_bucket("shared") as bucket:
        printed = machines.run(
            tmp_path / "log", "run", str(SMOKE), "--out", bucket.format("smoke"), "ray.train_workers=2"
        )
        run = resolve(bucket.format("smoke"))
        assert isinstance(run, RemotePath)
        assert f"report: {run}/report.html" in printed
        assert "testing" not in printed  # no secret of the URI
        for actor in ("RolloutWorker", "RayTrainWorker"):
            assert [machines.ran(number, actor) for number in range(3)] == [False, True, True]
        for name in ("random", "control", "explore", "test"):
            assert verify(run / "datasets" / name) == []
        for training in ("tokenizer", "dynamics", "finetuned/explore"):
            lines = [line for line in read_metrics(run / training / "metrics.jsonl") if "workers" in line]
            assert {line["workers"] for line in lines} == {2}
        tuned = checkpoints.read_description(run / "finetuned" / "explore" / "best")
        assert tuned["provenance"]["dataset"] == ReplayDataset(run / "datasets" / "explore").content_hash()
