"""Training on nodes that come and go: the same weights as undisturbed, and no iteration lost or twice."""

import dataclasses
from pathlib import Path

import pytest

from genie_ray.base.metrics_log import read_metrics
from genie_ray.base.session import RayConfig
from genie_ray.training import jobs
from genie_ray.training.config import TrainingConfig
from genie_ray.training.train import train
from tests.cluster.running import DEADLINE_S, Nodes, start, wait_for
from tests.genie_ray.tiny_world import guided_model, require_equal, tiny_dataset
from world_model import checkpoint

ITERATIONS = 400
CONFIG = TrainingConfig(
    iterations=ITERATIONS,
    batch_size=8,
    window=6,
    learning_rate=3e-5,
    final_learning_rate=3e-5,
    warmup_iterations=0,
    shuffle_buffer=32,
    log_every=1,
    validate_every=ITERATIONS,
    validation_windows=4,
    checkpoint_every=50,
    precision="fp32",
)
DRIVER = """
import pickle, sys
from genie_ray.base.session import RayConfig, ray_session
from genie_ray.training import train
job, address = pickle.loads(bytes.fromhex(sys.argv[1])), sys.argv[2]
train.RESIZE_EVERY_S = 2.0
settings = RayConfig(address=address, train_workers=2, train_workers_min=1, threads_per_worker=1)
with ray_session(settings):
    train.train(job, settings)
"""


@pytest.mark.long
def test_workers_become_fewer_and_more(
    nodes: Nodes, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle

    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "8")  # of the driver
    data = tiny_dataset(tmp_path / "data", (30,) * 12)
    checkpoint.save(guided_model(), tmp_path / "first", provenance={})
    jobs_ = {
        name: jobs.finetuning(CONFIG, data.root, tmp_path / name, init=tmp_path / "first", seed=0)
        for name in ("disturbed", "peaceful")
    }
    output = tmp_path / "disturbed"

    def workers() -> list[int]:
        lines = read_metrics(output / "metrics.jsonl") if (output / "metrics.jsonl").exists() else []
        return [int(line["workers"]) for line in lines if "workers" in line]

    first, second = nodes.add(), nodes.add()
    driver = start(["-c", DRIVER, pickle.dumps(jobs_["disturbed"]).hex(), nodes.address])
    wait_for(lambda: workers()[30:31] == [2], driver)
    nodes.remove(second)
    wait_for(lambda: workers()[-1:] == [1], driver)  # lines that the next training from a checkpoint may replace
    third = nodes.add()
    wait_for(lambda: workers()[-1:] == [2], driver)
    assert len(workers()) < ITERATIONS
    assert driver.wait(timeout=DEADLINE_S) == 0, driver.communicate()
    for raylet in (first, third):
        nodes.remove(raylet)
    found = [line["iteration"] for line in read_metrics(output / "metrics.jsonl") if "workers" in line]
    assert found == list(range(1, ITERATIONS + 1))

    train(jobs_["peaceful"], RayConfig(train_workers=2, threads_per_worker=1))
    ours, theirs = (checkpoint.load(tmp_path / name / "last").state_dict() for name in jobs_)
    require_equal(ours, theirs)
    before = guided_model().state_dict()
    assert max(float((value - before[name]).abs().max()) for name, value in ours.items()) > 1e-3


@pytest.mark.long
def test_a_node_with_notice_costs_nothing_that_was_learned(
    nodes: Nodes, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle

    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "8")
    monkeypatch.setenv("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "0.5")
    data = tiny_dataset(tmp_path / "data", (30,) * 12)
    checkpoint.save(guided_model(), tmp_path / "first", provenance={})
    config = dataclasses.replace(CONFIG, checkpoint_every=ITERATIONS)  # no other state before the end
    job = jobs.finetuning(config, data.root, tmp_path / "tuned", init=tmp_path / "first", seed=0)
    metrics = tmp_path / "tuned" / "metrics.jsonl"

    def workers() -> list[int]:
        return [int(line["workers"]) for line in read_metrics(metrics) if "workers" in line]

    first, second = nodes.add(), nodes.add()
    driver = start(["-c", DRIVER, pickle.dumps(job).hex(), nodes.address])
    wait_for(lambda: workers()[30:31] == [2], driver)
    nodes.warn(second)
    wait_for(lambda: list(tmp_path.glob("tuned/resume/*/training_state.pt")), driver)
    listed = tmp_path / "tuned" / "resume" / "checkpoint_manager_snapshot.json"
    wait_for(lambda: listed.exists() and "checkpoint_dir_name" in listed.read_text(), driver)  # Ray knows of the state
    nodes.remove(second)
    assert driver.wait(timeout=DEADLINE_S) == 0, driver.communicate()
    nodes.remove(first)
    lines = [line for line in read_metrics(metrics) if "workers" in line]
    assert [line["iteration"] for line in lines] == list(range(1, ITERATIONS + 1))
    assert workers()[:30] == [2] * 30  # it did not begin again
    assert workers()[-1] == 1
