"""The whole loop on an object store: killed twice, each time it goes on from there, where no other copy of it is."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.verify import verify
from genie_ray.storage import checkpoints
from genie_ray.storage.paths import RemotePath, found, resolve
from tests.genie_ray.s3 import s3_bucket

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "experiments" / "smoke.yaml"
DATASETS = ("random", "control", "explore", "test")
DEADLINE_S = 1_800
SIGNS = ("tokenizer/resume/*/training_state.pt", "agent/shared/state-*/companions.pkl")
"""In the middle of a training, and of exploring."""


@pytest.fixture(scope="module")
def uri() -> Iterator[str]:
    with s3_bucket("runs") as bucket:
        yield bucket.format("smoke")


def start(uri: str, machine: Path) -> subprocess.Popen[bytes]:
    """The loop in a process whose working directory, like the machine of a new node, has nothing of earlier ones."""
    machine.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {"PYTHONPATH": str(ROOT)}
    with (machine.parent / f"{machine.name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "genie_ray", "run", str(SMOKE), "--out", uri],
            stdout=log,
            stderr=log,
            env=environment,
            cwd=machine,
        )


def secrets(run: RemotePath) -> list[str]:
    """Files that hold the URI's credentials."""
    return [str(path) for path in run.rglob("*") if path.suffix != ".parquet" and b"testing" in path.read_bytes()]


@pytest.mark.long
def test_a_loop_on_an_object_store_is_killed_and_goes_on_elsewhere(uri: str, roms: list[str], tmp_path: Path) -> None:
    run = resolve(uri)
    assert isinstance(run, RemotePath)
    for number, sign in enumerate(SIGNS):
        process, end = start(uri, tmp_path / f"machine-{number}"), time.monotonic() + DEADLINE_S
        while not found(run, sign):
            assert process.poll() is None, (tmp_path / f"machine-{number}.log").read_text()[-3000:]
            assert time.monotonic() < end
            time.sleep(0.2)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not secrets(run)
    last = start(uri, tmp_path / "last")
    assert last.wait(timeout=DEADLINE_S) == 0, (tmp_path / "last.log").read_text()[-3000:]
    printed = (tmp_path / "last.log").read_text()
    assert f"report: {run}/report.html" in printed
    assert "testing" not in printed  # no secret of the URI is printed
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".log"]

    for name in DATASETS:
        assert verify(run / "datasets" / name) == []
    tuned = checkpoints.read_description(run / "finetuned" / "explore" / "best")
    assert tuned["provenance"]["dataset"] == ReplayDataset(run / "datasets" / "explore").content_hash()
    for metrics in run.rglob("metrics.jsonl"):
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        if metrics.parent != run:
            logged = [(line["iteration"], "validation_loss" in line) for line in lines]
            assert logged == sorted(set(logged)), metrics
    assert not secrets(run)
    before = {path: path.filesystem.get_file_info(path.path).mtime_ns for path in run.rglob("*")}
    again = start(uri, tmp_path / "again")  # nothing is left to do
    assert again.wait(timeout=DEADLINE_S) == 0
    after = {path: path.filesystem.get_file_info(path.path).mtime_ns for path in run.rglob("*")}
    assert {path.name for path in after if after[path] != before.get(path)} == {"report.html", "config.yaml"}
