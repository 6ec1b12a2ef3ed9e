"""Trainings whose runs of Ray Train end because workers or nodes died: Ray's own errors, raised by hand.

At what moments Ray Train gives up cannot be brought about at will; `tests/soak/` kills at random.
"""

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train import ControllerError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from genie_ray.base.errors import IncompleteError, cause_of, is_loss
from genie_ray.base.session import RayConfig
from genie_ray.storage.paths import StoredPath
from genie_ray.training import train
from genie_ray.training.config import TrainingConfig
from genie_ray.training.job import TrainingJob

DEATH = ActorDiedError()
RESET = RuntimeError("gloo: connection closed by peer")
WRONG = ValueError("the data have no windows")


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (ControllerError(DEATH), True),
        (WorkerGroupError("", {0: WorkerHealthCheckFailedError("", failure=DEATH)}), True),
        (WorkerGroupError("", {0: RESET, 1: WorkerHealthCheckFailedError("", failure=DEATH)}), True),
        (WorkerGroupError("", {0: OutOfMemoryError("")}), True),
        (WorkerGroupError("", {0: RESET}), False),
        (WorkerGroupError("", {0: WRONG}), False),
        (ControllerError(WRONG), False),
        (WRONG, False),
    ],
)
def test_a_death_is_told_from_what_code_raises(error: Exception, lost: bool) -> None:
    assert is_loss(error) is lost
    assert is_loss(pickle.loads(pickle.dumps(error))) is lost


def test_the_cause_of_a_controllers_error_is_what_it_met() -> None:
    assert cause_of(ControllerError(WRONG)) is WRONG


Attempt = Callable[[TrainingJob, RayConfig], None]


def attempts(output: StoredPath, outcomes: Iterator[tuple[int, Exception | None]]) -> Attempt:
    """Runs that each log an iteration, then raise or end."""

    def attempt(job: TrainingJob, ray_config: RayConfig) -> None:
        iteration, error = next(outcomes)
        assert isinstance(output, Path)
        with (output / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"iteration": iteration, "loss": 1.0}) + "\n")
        if error is not None:
            raise error

    return attempt


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    return TrainingJob(
        kind="dynamics", output=tmp_path, dataset=tmp_path, config=TrainingConfig(iterations=9, warmup_iterations=0)
    )


def test_a_training_goes_on_while_it_advances(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = ControllerError(DEATH)
    outcomes = iter([(1, lost), (1, lost), (2, lost), (2, lost), (3, lost), (4, None)])
    monkeypatch.setattr(train, "_fit", attempts(job.output, outcomes))
    train._run_trainer(job, RayConfig())
    assert list(outcomes) == []
    assert capsys.readouterr().out.count("going on from the last saved state") == 5


def test_a_training_that_does_not_advance_gives_up_in_one_line(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = iter([(5, ControllerError(DEATH))] * 9)
    monkeypatch.setattr(train, "_fit", attempts(job.output, outcomes))
    with pytest.raises(IncompleteError, match=r"keep dying; none got beyond iteration 5; the same command goes on"):
        train._run_trainer(job, RayConfig())
    assert len(list(outcomes)) == 9 - train.LOST_RUNS


def test_what_the_code_raises_is_not_tried_again(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = iter([(1, WorkerGroupError("", {0: WRONG}))] * 2)
    monkeypatch.setattr(train, "_fit", attempts(job.output, outcomes))
    with pytest.raises(ValueError, match="no windows"):
        train._run_trainer(job, RayConfig())
    assert len(list(outcomes)) == 1
