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
from genie_ray.collecting.collection import collect
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.plan import Policy
from genie_ray.envs.config import EnvConfig
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.verify import verify
from genie_ray.storage import checkpoints
from genie_ray.storage.paths import RemotePath, resolve
from tests.cluster.running import DEADLINE_S, ENVIRONMENT, ROOT
from tests.genie_ray.s3 import s3_bucket

GAME, STEPS, LENGTH, PER_SHARD = "Kangaroo-Atari2600-v0", 600, 50, 100
APART = ["unshare", "--map-root-user", "--mount"]  # a process with mounts of its own
TOKENIZER = [
    "env.frame_size=64",
    "tokenizer.dim=32",
    "tokenizer.blocks=1",
    "tokenizer.heads=2",
    "tokenizer.head_dim=16",
]
TRAINING = [
    "train_tokenizer.iterations=6",
    "train_tokenizer.batch_size=4",
    "train_tokenizer.window=4",
    "train_tokenizer.warmup_iterations=0",
    "train_tokenizer.log_every=1",
    "train_tokenizer.validate_every=3",
    "train_tokenizer.validation_windows=2",
    "train_tokenizer.checkpoint_every=3",
]


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

    def start(self, arguments: list[str]) -> None:
        mount = f"mount -t tmpfs tmpfs {self.private} && cd {self.private} && exec "
        ray = [f"{Path(sys.executable).parent}/ray", "start", "--block", "--node-ip-address=127.0.0.1", *arguments]
        script = mount + shlex.join([*ray, f"--object-store-memory={80 * 1024**2}", "--num-gpus=0"])
        self.processes.append(
            subprocess.Popen(
                [*APART, "sh", "-c", script],
                env=self.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def run(self, *arguments: str) -> str:
        """A command on the head; returns what it printed."""
        namespaces = ["nsenter", "--user", "--preserve-credentials", "--mount", f"--target={self.processes[0].pid}"]
        command = shlex.join([sys.executable, "-m", "genie_ray", *arguments, "--address", f"127.0.0.1:{self.port}"])
        ended = subprocess.run(
            [*namespaces, "sh", "-c", f"cd {self.private} && exec {command}"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def ran(self, machine: int, actor: str) -> bool:
        """Whether an actor of this class ran there: its log, in the machine's own file system, says so."""
        target = f"--target={self.processes[machine].pid}"
        command = [
            "nsenter",
            "--user",
            "--preserve-credentials",
            "--mount",
            target,
            "grep",
            "-rq",
            f"actor_name:{actor}",
        ]
        return subprocess.run([*command, str(self.private)], check=False).returncode == 0


@pytest.fixture
def machines() -> Iterator[Machines]:
    if subprocess.run([*APART, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no mounts of a process's own")
    with socket.socket() as probe, tempfile.TemporaryDirectory(dir="/tmp", prefix="n") as private:  # a short path
        probe.bind(("127.0.0.1", 0))
        machines = Machines(Path(private), probe.getsockname()[1])
        probe.close()
        head = [f"--port={machines.port}", "--head", "--num-cpus=0", "--include-dashboard=false"]
        machines.start([*head, f"--temp-dir={private}"])
        for _ in range(2):
            time.sleep(5)
            machines.start([f"--address=127.0.0.1:{machines.port}", "--num-cpus=1"])
        yield machines
        for process in reversed(machines.processes):
            process.terminate()
            process.wait(DEADLINE_S)
        assert list(Path(private).iterdir()) == []  # nothing came out of the machines


@pytest.mark.long
@pytest.mark.slow
def test_two_nodes_collect_and_train_by_a_bucket_alone(
    machines: Machines, roms: list[str], ray_session: None, tmp_path: Path
) -> None:
    with s3_bucket("shared") as bucket:
        data, output = (resolve(bucket.format(name)) for name in ("play", "tokenizer"))
        assert isinstance(output, RemotePath)
        play = ["--steps", str(STEPS), "--max-steps", str(LENGTH), "--game", GAME]
        workers = ["collection.workers_min=2", f"collection.steps_per_shard={PER_SHARD}", "ray.wait_for_nodes_s=60"]
        machines.run("collect", bucket.format("play"), *play, *workers)
        shared = ["--data", bucket.format("play"), "ray.train_workers=2", "ray.threads_per_worker=1"]
        printed = machines.run("train", "tokenizer", bucket.format("tokenizer"), *shared, *TOKENIZER, *TRAINING)
        assert "testing" not in printed
        for actor in ("RolloutWorker", "RayTrainWorker"):
            assert [machines.ran(number, actor) for number in range(3)] == [False, True, True]

        assert verify(data) == []
        config = CollectionConfig(steps_per_shard=PER_SHARD)
        alone = collect(tmp_path, Policy(name="random"), [GAME], STEPS, config, EnvConfig(max_episode_steps=LENGTH))
        assert ReplayDataset(data).content_hash() == ReplayDataset(alone).content_hash()
        lines = [line for line in read_metrics(output / "metrics.jsonl") if "workers" in line]
        assert [(line["iteration"], line["workers"]) for line in lines] == [(number, 2) for number in range(1, 7)]
        trained = checkpoints.read_description(output / "last")
        assert trained["provenance"]["dataset"] == ReplayDataset(data).content_hash()
        assert checkpoints.load_tokenizer(output / "last").config.dim == 32
