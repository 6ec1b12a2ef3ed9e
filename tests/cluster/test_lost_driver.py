"""The node that a job's own process runs on is killed, and the job submitted again: it goes on."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from genie_ray.collecting.collection import collect
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.plan import Policy
from genie_ray.envs.config import EnvConfig
from genie_ray.replay.verify import verify
from genie_ray.replay.writer import shard_paths
from tests.cluster.running import DEADLINE_S, OF_JOBS, ROOT, contents, job_server

GAME, STEPS, PER_SHARD, LENGTH = "Kangaroo-Atari2600-v0", 2400, 100, 50
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def jobs(roms: list[str]) -> Iterator[str]:
    """A job server with three nodes: for the job's process, a rollout worker, and one more."""
    with job_server(3) as address:
        yield address


def submit(server: str, name: str, output: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Submits a collection whose own process takes a CPU, so that it does not run on the head."""
    job = ["ray", "job", "submit", "--address", server, "--submission-id", name, "--entrypoint-num-cpus", "1", *words]
    play = ["python", "-m", "genie_ray", "collect", str(output), "--game", GAME, "--steps", str(STEPS)]
    settings = ["--max-steps", str(LENGTH), f"collection.steps_per_shard={PER_SHARD}", "collection.workers_max=1"]
    return subprocess.run(
        [*job, "--working-dir", ".", "--", *play, *settings],
        env=OF_JOBS, cwd=ROOT, capture_output=True, text=True, timeout=2 * DEADLINE_S,
    )  # fmt: skip


def node_of(output: Path) -> psutil.Process:
    """The raylet of the node on which the job's process runs."""
    (driver, *_) = (
        process
        for process in psutil.process_iter(["cmdline"])
        if str(output) in (process.info["cmdline"] or []) and "ray" not in (process.info["cmdline"] or [])[:2]
    )
    return next(parent for parent in driver.parents() if parent.name() == "raylet")


def test_the_drivers_node_is_killed_and_the_job_submitted_again(jobs: str, ray_session: None, tmp_path: Path) -> None:
    config, env = CollectionConfig(steps_per_shard=PER_SHARD), EnvConfig(max_episode_steps=LENGTH)
    peaceful = contents(collect(tmp_path / "peaceful", Policy(name="random"), [GAME], STEPS, config, env))

    output, end = tmp_path / "disturbed", time.monotonic() + DEADLINE_S
    first = submit(jobs, "first", output, "--no-wait")
    assert first.returncode == 0, first.stdout + first.stderr
    while len(shard_paths(output)) < 3:
        assert time.monotonic() < end
        time.sleep(0.05)
    raylet = node_of(output)
    for process in [raylet, *raylet.children(recursive=True)]:
        process.kill()
    before = {path: path.stat().st_mtime_ns for path in shard_paths(output)}
    assert 3 <= len(before) < STEPS // PER_SHARD
    assert not (output / "_dataset.json").exists()

    again = submit(jobs, "again", output)
    assert again.returncode == 0, again.stdout + again.stderr
    assert contents(output) == peaceful
    assert verify(output) == []
    assert {path: path.stat().st_mtime_ns for path in before} == before  # nothing was played twice
