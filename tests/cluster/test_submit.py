"""A command as a job on a cluster of several nodes on this machine."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from genie_ray.replay.dataset import ReplayDataset
from tests.cluster.running import OF_JOBS, ROOT, Nodes, job_server

GAME = "Kangaroo-Atari2600-v0"


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "genie_ray", *words],
        env=OF_JOBS,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.fixture(scope="module")
def jobs(roms: list[str]) -> Iterator[str]:
    """A job server with two nodes."""
    with job_server(2) as address:
        yield address


@pytest.mark.slow
def test_a_job_is_submitted_followed_and_listed(jobs: str, tmp_path: Path) -> None:
    play = ["collect", str(tmp_path / "data"), "--game", GAME, "--steps", "300"]
    done = command("submit", "--address", jobs, "--name", "play", "--", *play)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{GAME}: 300 of 300 steps" in done.stdout
    assert "play: succeeded" in done.stderr
    assert sum(episode.length for episode in ReplayDataset(tmp_path / "data").episodes) == 300
    logs = command("submit", "--address", jobs, "--logs", "play")
    assert logs.returncode == 0
    assert logs.stdout == done.stdout
    failed = command("submit", "--address", jobs, "--name", "fails", "--", *play, "--steps", "0")
    assert failed.returncode == 1
    assert "fails: failed: " in failed.stderr
    listed = command("submit", "--address", jobs, "--status").stdout
    assert re.search(r"fails +FAILED +genie-ray collect", listed)
    assert re.search(r"play +SUCCEEDED +genie-ray collect", listed)
    again = command("submit", "--address", jobs, "--name", "play", "--", *play)
    assert again.returncode == 2
    assert "the cluster refuses the job" in again.stderr
    unknown = command("submit", "--address", jobs, "--stop", "nothing")
    assert unknown.returncode == 2
    assert "no job 'nothing'" in unknown.stderr


@pytest.mark.slow
def test_a_job_does_not_run_on_another_cluster_of_the_machine(jobs: str, nodes: Nodes, tmp_path: Path) -> None:
    assert nodes.address  # of a cluster without CPUs, started later
    play = ["collect", str(tmp_path / "data"), "--game", GAME, "--steps", "100"]
    done = command("submit", "--address", jobs, "--name", "where", "--", *play)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_rays_own_command_submits_too(jobs: str, tmp_path: Path) -> None:
    """As clusters/README.md has it. If Ray loses the job's code (its issue 36703), the job is submitted again."""
    job = ["ray", "job", "submit", "--address", jobs, "--working-dir", ".", "--"]
    play = ["python", "-m", "genie_ray", "collect", str(tmp_path / "data"), "--game", GAME, "--steps", "100"]
    for _ in range(2):
        done = subprocess.run([*job, *play], env=OF_JOBS, cwd=ROOT, capture_output=True, text=True, timeout=200)
        if "Failed to download runtime_env file package" not in done.stdout:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{GAME}: 100 of 100 steps" in done.stdout
    assert sum(episode.length for episode in ReplayDataset(tmp_path / "data").episodes) == 100


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--address", "http://127.0.0.1:9", "--status"], "no job server at http://127.0.0.1:9"),
        (["--address", "ray://head:10001", "--status"], "the job server's is a URL"),
        (["--status", "--logs", "a"], "give one of: -- COMMAND, --status, --logs JOB, --stop JOB"),
        (["--", "run", "experiments/smoke.yaml"], "give `run` an --out on storage that all nodes see"),
        (["--", "reproduce", "tab4"], "give `reproduce` an --out on storage that all nodes see"),
        (["--", "run", "experiments/smoke.yaml", "--out", "runs/x"], "which lies in the job's own copy"),
    ],
)
def test_what_is_refused_before_anything_starts(words: list[str], said: str) -> None:
    refused = command("submit", *words)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
