"""Trainings' metrics in MLflow, against its own server on this machine: one run each, every point once."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from genie_ray.base import session
from genie_ray.base.metrics_log import MetricsLog, read_metrics
from genie_ray.base.session import RayConfig
from genie_ray.base.tracking import mlflow_run
from genie_ray.base.tracking.mlflow_run import EXPERIMENT, RUN_FILE, require_mlflow, tracked
from genie_ray.cli import main
from genie_ray.storage.paths import resolve
from genie_ray.training.job import TrainingJob
from genie_ray.training.train import train
from tests.genie_ray.children import children_named
from tests.genie_ray.s3 import s3_bucket
from tests.genie_ray.tiny_world import TOKENIZER, TRAINING, tiny_dataset

CONFIG = dataclasses.replace(TRAINING, iterations=40, checkpoint_every=10)
Points = list[tuple[str, int, float]]
"""Metric, step, value."""


class Server:
    """MLflow's own, with a database in a directory; it can be killed and started again at the same address."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.uri = f"http://127.0.0.1:{free.getsockname()[1]}"
        self._directory, self._log = directory, (directory / "log.txt").open("w")

    def start(self) -> None:
        store = ["--backend-store-uri", f"sqlite:///{self._directory}/mlflow.db", "--workers", "1"]
        at = ["--host", "127.0.0.1", "--port", self.uri.rpartition(":")[2]]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *store, *at],
            env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            cwd=self._directory,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        begin = time.monotonic()
        while True:
            try:
                return urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
            except OSError:
                assert self._process.poll() is None, (self._directory / "log.txt").read_text()[-2_000:]
                assert time.monotonic() - begin < 180
                time.sleep(0.2)

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def runs(self, directory: object) -> list[Any]:
        from mlflow import MlflowClient

        client = MlflowClient(self.uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id])
        return [run for run in found if run.data.tags["genie_ray_directory"] == str(directory)]

    def points(self, run: Any) -> Points:
        from mlflow import MlflowClient

        client = MlflowClient(self.uri)
        histories = [client.get_metric_history(run.info.run_id, key) for key in run.data.metrics]
        return sorted((point.key, point.step, point.value) for points in histories for point in points)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    for needed in ("mlflow", "alembic", "flask_cors"):
        pytest.importorskip(needed)
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_run, "SEND_EVERY_S", 0.1)


def logged(directory: Any) -> Points:
    """What metrics.jsonl says."""
    lines = read_metrics(directory / "metrics.jsonl")
    return sorted((key, int(line["iteration"]), line[key]) for line in lines for key in line.keys() - {"iteration"})


def until(condition: Any) -> None:
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < 60
        time.sleep(0.1)


def test_a_resumed_training_continues_its_run(server: Server, tmp_path: Path) -> None:
    """It had logged beyond the state that it resumes from, and repeats that."""
    directory = tmp_path / "Über" / "dynamics"
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.safe_dump({"seed": 3, "env": {"action_set": "coinrun"}}))

    def stopped() -> None:
        with tracked(directory, server.uri):
            log = MetricsLog(directory, from_iteration=0)
            for iteration in range(1, 8):
                log.write(iteration, {"loss": 1 / iteration, "reward/Jump&Run ✓": float(iteration)})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    (run,) = server.runs(directory)
    assert run.info.status == "KILLED"
    assert run.info.run_name == "Über/dynamics"
    assert run.data.params == {"seed": "3", "env.action_set": "coinrun"}
    with tracked(directory, server.uri):
        log = MetricsLog(directory, from_iteration=5)
        until(lambda: server.runs(directory)[0].info.status == "RUNNING")
        for iteration in range(6, 11):
            log.write(iteration, {"loss": 1 / iteration, "reward/Jump&Run ✓": float(iteration)})
        log.write(10, {"validation_loss": 0.5})
        log.close()
    (again,) = server.runs(directory)
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    expected = [("loss", step, 1 / step) for step in range(1, 11)]
    expected += [("reward/Jump_Run _", step, float(step)) for step in range(1, 11)]
    assert server.points(again) == sorted([*expected, ("validation_loss", 10, 0.5)])


def test_what_was_logged_without_a_server_is_sent_to_the_first_one(server: Server, tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, from_iteration=0)
    for iteration in range(1, 2_001):
        log.write(iteration, {"loss": 0.5})
    with tracked(tmp_path, None):
        assert not (tmp_path / RUN_FILE).exists()
    with pytest.raises(ValueError, match="lower learning_rate"), tracked(tmp_path, server.uri):
        raise ValueError("try a lower learning_rate")
    (run,) = server.runs(tmp_path)
    assert run.info.status == "FAILED"
    assert server.points(run) == logged(tmp_path)


def test_a_training_on_an_object_store(server: Server) -> None:
    with s3_bucket("runs") as uri:
        directory = resolve(uri.format("demo/agent"))
        log = MetricsLog(directory, from_iteration=0)
        for last in (3, 6):
            with tracked(directory, server.uri):
                for iteration in range(last - 2, last + 1):
                    log.write(iteration, {"return": float(iteration)})
                log.flush()
        (run,) = server.runs("s3://runs/demo/agent")
        assert run.info.run_name == "demo/agent"
        assert server.points(run) == logged(directory)
        assert len(server.points(run)) == 6


def test_a_server_that_dies_holds_nothing_up(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = MetricsLog(tmp_path, from_iteration=0)
    with tracked(tmp_path, server.uri):
        log.write(1, {"loss": 1.0})
        until(lambda: server.runs(tmp_path) and server.points(server.runs(tmp_path)[0]))
        server.kill()
        begin = time.monotonic()
        log.write(2, {"loss": 0.5})
        time.sleep(1)  # several attempts
        log.write(3, {"loss": 0.25})
        assert time.monotonic() - begin < 2
        server.start()
        log.write(4, {"loss": 0.125})
    (run,) = server.runs(tmp_path)
    assert server.points(run) == [("loss", step, 0.5 ** (step - 1)) for step in range(1, 5)]
    warnings = capsys.readouterr().out.splitlines()
    assert len(warnings) == 1
    assert warnings[0].startswith(f"warning: MLflow gets nothing of {tmp_path} for now: ")


def test_an_end_without_the_server_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One refuses connections; another takes them and says nothing, and is waited for a while."""
    pytest.importorskip("mlflow")
    with tracked(tmp_path, "http://127.0.0.1:9"):
        MetricsLog(tmp_path, from_iteration=0).write(1, {"loss": 1.0})
    told = capsys.readouterr().out.splitlines()
    assert told[-1].startswith(f"warning: MLflow lacks the last lines of {tmp_path}/metrics.jsonl: ")
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow_run, "END_S", 1.0)
        begin = time.monotonic()
        with tracked(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}"):
            pass
        assert time.monotonic() - begin < 3
    assert "MLflow lacks" in capsys.readouterr().out


@pytest.mark.long
def test_a_training_whose_worker_is_killed(server: Server, ray_session: None, tmp_path: Path) -> None:
    """The restarted one writes the log anew from its last state; the server has its lines, each once."""
    data, output = tiny_dataset(tmp_path / "data", (30,) * 6), tmp_path / "run" / "tokenizer"
    killed: list[int] = []

    def kill_between_states() -> None:
        until(lambda: (output / "metrics.jsonl").exists() and len(logged(output)) and logged(output)[-1][1] > 13)
        for process in children_named("RayTrainWorker"):
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)

    killer = threading.Thread(target=kill_between_states)
    killer.start()
    job = TrainingJob(kind="tokenizer", output=output, dataset=data.root, config=CONFIG, model=TOKENIZER)
    train(job, RayConfig(threads_per_worker=1, mlflow=server.uri))
    killer.join()
    assert killed
    (run,) = server.runs(output)
    assert run.info.status == "FINISHED"
    assert run.data.params["kind"] == "tokenizer"
    assert run.data.params["config.iterations"] == "40"
    theirs, ours = server.points(run), logged(output)
    assert Counter((key, step) for key, step, _ in theirs) == Counter((key, step) for key, step, _ in ours)
    losses = [point for point in ours if point[0] == "loss"]
    assert [step for _, step, _ in losses] == list(range(1, 41))
    assert [point for point in theirs if point[0] == "loss"] == losses  # what is repeated, is equal


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD") as error:
        RayConfig(mlflow="https://me:geheim@example.org")
    assert "geheim" not in str(error.value)
    with pytest.raises(ValueError, match=r"^mlflow = 'mlruns': must be a URI"):
        RayConfig(mlflow="mlruns")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ValueError, match=r"pip install 'genie-ray\[mlflow\]'"):
        require_mlflow("http://127.0.0.1:9")


def test_a_server_that_does_not_answer_is_refused_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setattr(session, "start_local_ray", lambda **_: pytest.fail("Ray was started"))
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    for uri in ("http://127.0.0.1:9", "nonsense://x"):
        begin = time.monotonic()
        command = ["train", "tokenizer", str(tmp_path / "t"), "--data", str(tmp_path), f"ray.mlflow={uri}"]
        monkeypatch.setattr("sys.argv", ["genie-ray", *command])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code == 2
        assert time.monotonic() - begin < 30
        told = capsys.readouterr().err.strip().splitlines()
        assert len(told) == 1
        assert f"ray.mlflow = '{uri}': " in told[0]
