"""Trainings whose directory is on an object store: a killed one goes on from there, on a machine that has no copy."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from genie_ray.base.metrics_log import read_metrics
from genie_ray.base.session import RayConfig
from genie_ray.storage import checkpoints
from genie_ray.storage.paths import RemotePath, resolve
from genie_ray.training.job import TrainingJob
from genie_ray.training.train import train
from tests.genie_ray.children import children_named
from tests.genie_ray.s3 import s3_bucket
from tests.genie_ray.tiny_world import TOKENIZER, TRAINING, tiny_dataset

RAY = RayConfig(threads_per_worker=1)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_bucket("models") as uri:
        yield uri


@pytest.mark.long
def test_a_killed_training_goes_on_from_the_store(bucket: str, ray_session: None, tmp_path: Path) -> None:
    data = tiny_dataset(tmp_path / "data", (30,) * 6)
    output, unbroken = resolve(bucket.format("run/tokenizer")), tmp_path / "unbroken"
    assert isinstance(output, RemotePath)

    def job(place: Path | RemotePath) -> TrainingJob:
        return TrainingJob(kind="tokenizer", output=place, dataset=data.root, config=TRAINING, model=TOKENIZER)

    train(job(unbroken), RAY)
    killed: list[int] = []

    def kill_after_the_first_state() -> None:
        while not list((output / "resume").glob("checkpoint_*/training_state.pt")):
            time.sleep(0.05)
        for process in children_named("RayTrainWorker"):
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)

    killer = threading.Thread(target=kill_after_the_first_state)
    killer.start()
    best = train(job(output), RAY)
    killer.join()
    assert killed
    assert str(best) == "s3://models/run/tokenizer/best"
    ours, theirs = (checkpoints.read_description(place / "last") for place in (output, unbroken))
    assert ours["weights_sha256"] == theirs["weights_sha256"]
    logged = [line["iteration"] for line in read_metrics(output / "metrics.jsonl") if "loss" in line]
    assert logged == list(range(1, TRAINING.iterations + 1))
    assert not (output / "resume").exists()
    assert list((output / "tensorboard").glob("events.*"))
    weights = f"{output.path}/last/model.safetensors"
    before = output.filesystem.get_file_info(weights).mtime_ns
    train(job(output), RAY)  # finished: nothing is done again
    assert output.filesystem.get_file_info(weights).mtime_ns == before
