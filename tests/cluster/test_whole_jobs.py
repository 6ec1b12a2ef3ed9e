"""Whole runs as submitted jobs on a head and four nodes: the smoke preset, whose evaluation loses a node, and a sweep,
which is killed and submitted again.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from genie_ray.base.metrics_log import read_metrics
from genie_ray.replay.verify import verify
from genie_ray.storage import checkpoints
from genie_ray.sweeping.plan import load_sweep, plan_trials
from genie_ray.sweeping.report import read_results
from tests.cluster.running import OF_JOBS, ROOT, job_server
from tests.genie_ray.sweeping.tiny_sweep import TINY

DEADLINE_S = 1_800
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def jobs(roms: list[str]) -> Iterator[str]:
    """A job server with four nodes."""
    with job_server(4) as address:
        yield address


@pytest.fixture(scope="module")
def run(jobs: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smoke preset as a job, undisturbed."""
    output = tmp_path_factory.mktemp("run") / "smoke"
    ended(submitted(jobs, "smoke", "run", "experiments/smoke.yaml", "--out", str(output)))
    return output


def submitted(server: str, name: str, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "genie_ray", "submit", "--address", server, "--name", name, "--", *words]
    return subprocess.Popen(command, env=OF_JOBS, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(job: subprocess.Popen[str], status: int = 0) -> str:
    printed, _ = job.communicate(timeout=DEADLINE_S)
    assert job.returncode == status, printed[-3000:]
    return printed


def wait_until(condition: Callable[[], object], job: subprocess.Popen[str]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert job.poll() is None, ended(job)[-3000:]
        assert time.monotonic() < end
        time.sleep(0.05)


def processes(*, of: str) -> list[psutil.Process]:
    """Processes of a Ray task or actor, or with an argument."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(argument == of or argument.startswith(f"{of}.") for argument in process.info["cmdline"] or [])
    ]


def nodes_of(worker: str) -> list[psutil.Process]:
    """The raylets, but the head's, with such a task or actor."""
    raylets = [parent for each in processes(of=worker) for parent in each.parents() if parent.name() == "raylet"]
    return [raylet for raylet in raylets if "--head" not in raylet.cmdline()]


def test_the_smoke_preset_as_a_job_leaves_every_artefact(run: Path) -> None:
    for name in ("random", "control", "explore", "test"):
        assert verify(run / "datasets" / name) == []
    assert checkpoints.read_description(run / "finetuned" / "explore" / "best")["weights_sha256"]
    assert (run / "report.html").exists()


def test_a_node_dies_in_evaluation_and_the_figures_are_the_same(jobs: str, run: Path) -> None:
    undisturbed = (run / "evaluation" / "evaluation.json").read_bytes()
    shutil.rmtree(run / "evaluation")
    job = submitted(jobs, "evaluation", "run", "experiments/smoke.yaml", "--out", str(run))
    wait_until(lambda: nodes_of("ray::_Emulator"), job)
    raylet = nodes_of("ray::_Emulator")[0]
    for process in [raylet, *raylet.children(recursive=True)]:
        process.kill()
    ended(job)
    assert (run / "evaluation" / "evaluation.json").read_bytes() == undisturbed


def test_a_sweep_as_a_job_is_killed_and_goes_on(jobs: str, run: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "tiny.yaml", tmp_path / "out"
    judged = {"world_model": str(run / "dynamics" / "best"), "test": str(run / "datasets" / "test")}
    file.write_text(yaml.safe_dump({**judged, **TINY}))
    words = ("sweep", str(file), "--out", str(out))
    job = submitted(jobs, "first", *words)
    wait_until(lambda: list(out.glob("trials/000/agents/*/state-000001")), job)
    for driver in processes(of=str(out)):
        if "submit" not in driver.cmdline():
            driver.kill()
    assert "first: failed" in ended(job, status=1)
    ended(submitted(jobs, "second", *words))
    (metrics,) = out.glob("trials/000/agents/*/metrics.jsonl")
    assert [line["iteration"] for line in read_metrics(metrics)] == [1, 2, 3]
    results = read_results(out, plan_trials(load_sweep(file)))
    assert [result.state for result in results] == ["measured", "stopped early"]
