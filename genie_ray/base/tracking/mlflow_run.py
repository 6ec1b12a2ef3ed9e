"""The lines of a training's metrics.jsonl as a run on an MLflow server (https://mlflow.org/docs/latest/rest-api.html).

The process that starts a training reads the file that others write and sends what is new. So it alone needs MLflow's
client and credentials, and no training waits for a server. On an object store the file is read as often as it is
uploaded (metrics_log.py).
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genie_ray.base.errors import one_line
from genie_ray.base.files import parse_yaml, shortened, write_atomically
from genie_ray.base.progress import POLL_REMOTE_SECONDS, console
from genie_ray.base.settings import SETTINGS_FILE

if TYPE_CHECKING:
    from genie_ray.storage.paths import StoredPath

EXPERIMENT = "genie-ray"
RUN_FILE = "mlflow.json"
"""In a training's directory: the tag that its run has, on whichever server."""

ID, DIRECTORY = "genie_ray_id", "genie_ray_directory"
NEEDS_CLIENT = "ray.mlflow needs MLflow's client: pip install 'genie-ray[mlflow]'"
SEND_EVERY_S = 5.0
END_S = 15.0  # how long an ended training waits for the server to take the rest
METRICS, PARAMETERS = 1_000, 100  # in one request, at most

QUICK = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # this module tries again; by default a command hangs for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it tells its makers what it is used for
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Settings of MLflow's client, for what the environment does not say."""


def require_mlflow(uri: str) -> None:
    """Requires that trainings can be logged there.

    Raises:
        ValueError: one line; the client is not installed, nothing answers, or it refuses.
    """
    client = _client_at(uri)
    try:
        _experiment(client)
    except Exception as error:  # MLflow's own, and those of the libraries that it uses
        raise ValueError(f"ray.mlflow = {uri!r}: {shortened(one_line(error))}") from error


@contextmanager
def tracked(directory: StoredPath, uri: str | None, *, settings: str = SETTINGS_FILE) -> Iterator[None]:
    """Sends a training's metrics to an MLflow server, if one is given, while the block runs.

    A directory has one run on a server. Started again, the training continues it: what the server has is not sent
    again, what it lacks is sent. A server that does not answer is told once; the block goes on.

    Args:
        settings: the file in the directory whose values become the run's parameters.
    """
    if uri is None:
        yield
        return
    sender = _Sender(directory, _client_at(uri), settings)
    try:
        yield
    except BaseException as error:
        sender.end("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    sender.end("FINISHED")


class _Sender:
    """A thread that sends what is new in a metrics.jsonl, until the training ends."""

    def __init__(self, directory: StoredPath, client: Any, settings: str) -> None:
        self._directory, self._client, self._settings = directory, client, directory / settings
        self._run: str | None = None  # the server's name for it, once it has told what it has
        self._sent = b""  # of the file
        self._steps: dict[str, int] = {}  # the last one that the server has, by metric
        self._status, self._error = "", f"no answer within {END_S:.0f} s"
        self._ended, self._complete = threading.Event(), False
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def end(self, status: str) -> None:
        """Sends the rest and ends the run; waits for it a while, and tells if the server did not take it."""
        self._status = status
        self._ended.set()
        self._thread.join(END_S)
        if not self._complete:
            _warn(f"MLflow lacks the last lines of {self._directory / 'metrics.jsonl'}: {self._error}")

    def _follow(self) -> None:
        pause = SEND_EVERY_S if isinstance(self._directory, Path) else POLL_REMOTE_SECONDS
        wait, warned = 0.0, False
        while True:
            ended = self._ended.wait(wait)
            wait = pause
            try:
                self._send()
                if ended:
                    self._client.set_terminated(self._run, self._status)
                    self._complete = True
            except Exception as error:  # MLflow's own, and those of the libraries that it uses
                self._run, self._error = None, shortened(one_line(error))  # it may have taken some: it is asked again
                if not warned and not self._ended.is_set():
                    warned = True
                    _warn(f"MLflow gets nothing of {self._directory} for now: {self._error}")
            if ended:
                return

    def _send(self) -> None:
        from mlflow.entities import Metric

        run = self._run = self._run or self._begin()
        file = self._directory / "metrics.jsonl"
        content = file.read_bytes() if file.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        now, points = int(time.time() * 1_000), []
        for line in whole.removeprefix(self._sent).splitlines():  # all of it, if a resumed training wrote it anew
            values = json.loads(line)
            step = int(values.pop("iteration"))
            named = {re.sub(r"[^\w.\- /]", "_", key): value for key, value in values.items()}
            points += [Metric(key, value, now, step) for key, value in named.items() if step > self._steps.get(key, -1)]
        for first in range(0, len(points), METRICS):
            self._client.log_batch(run, metrics=points[first : first + METRICS])
        self._steps |= {point.key: point.step for point in points}
        self._sent = whole

    def _begin(self) -> str:
        """Finds the directory's run, or creates it; asks what it has."""
        file = self._directory / RUN_FILE
        if not file.exists():  # before its run is: a process that is killed here leaves no run without a name
            text = json.dumps({ID: uuid.uuid4().hex})
            write_atomically(file, lambda path: path.write_text(text))
        mark = json.loads(file.read_text())[ID]
        experiment = _experiment(self._client)
        if found := self._client.search_runs([experiment], filter_string=f"tags.{ID} = '{mark}'"):
            run = found[0]
            self._client.update_run(run.info.run_id, status="RUNNING")
        else:
            tags = {ID: mark, DIRECTORY: str(self._directory)}
            run = self._client.create_run(experiment, tags=tags, run_name="/".join(self._directory.parts[-2:]))
        number = run.info.run_id
        if not run.data.params and self._settings.exists():
            self._tell_settings(number)
        histories = {key: self._client.get_metric_history(number, key) for key in run.data.metrics}
        self._steps = {key: max(point.step for point in points) for key, points in histories.items()}
        self._sent = b""
        return number

    def _tell_settings(self, run: str) -> None:
        from mlflow.entities import Param

        values = _leaves(parse_yaml(self._settings.read_bytes()))
        parameters = [Param(key, shortened(str(value))) for key, value in values.items()]
        for first in range(0, len(parameters), PARAMETERS):
            self._client.log_batch(run, params=parameters[first : first + PARAMETERS])


def _client_at(uri: str) -> Any:
    for name, value in QUICK.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise ValueError(NEEDS_CLIENT) from error
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    try:
        return MlflowClient(uri)
    except Exception as error:  # MLflow's own, of many classes
        raise ValueError(f"ray.mlflow = {uri!r}: {shortened(one_line(error))}") from error


def _experiment(client: Any) -> str:
    """The id of this project's experiment, which is created if it is not there."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return client.create_experiment(EXPERIMENT)
        except MlflowException:
            found = client.get_experiment_by_name(EXPERIMENT)
            if found is None:  # else another process has created it meanwhile
                raise
    if found.lifecycle_stage != "active":
        raise ValueError(f"its experiment {EXPERIMENT!r} is deleted: restore it there, or delete it permanently")
    return found.experiment_id


def _leaves(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping's values by dotted keys."""
    leaves: dict[str, Any] = {}
    for key, value in values.items():
        leaves |= _leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return leaves


def _warn(text: str) -> None:
    console.print(f"warning: {text}", soft_wrap=True, markup=False)
