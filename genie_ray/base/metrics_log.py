"""Training metrics: one JSON object per line in metrics.jsonl, the same in TensorBoard and as gauges of the cluster."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from genie_ray.base.files import write_atomically
from genie_ray.base.progress import publish

if TYPE_CHECKING:
    from genie_ray.storage.paths import StoredPath

UPLOAD_EVERY_S = 30.0
"""How often a log on an object store, where nothing can be appended, is written anew."""


class MetricsLog:
    """Appends to `directory/metrics.jsonl` and `directory/tensorboard/`, and publishes the latest values.

    A resumed run repeats the iterations after its checkpoint. What an earlier attempt logged beyond `from_iteration` is
    therefore dropped first, so that no iteration appears twice.

    On an object store, both are uploaded now and then; `flush` must be called before a state is saved there.
    """

    def __init__(self, directory: StoredPath, from_iteration: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._directory, self._uploaded = directory, time.monotonic()
        self._run = "/".join(directory.parts[-2:])
        kept = [line for line in read_metrics(directory / "metrics.jsonl") if line["iteration"] <= from_iteration]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        if isinstance(directory, Path):
            self._local = directory
            directory.mkdir(parents=True, exist_ok=True)
        else:
            self._temporary = tempfile.TemporaryDirectory(prefix="genie-ray-")
            self._local = Path(self._temporary.name)
            (directory / "tensorboard").mkdir(parents=True, exist_ok=True)
        path = self._local / "metrics.jsonl"
        write_atomically(path, lambda file: file.write_text(text))
        self._file = path.open("a", buffering=1)
        self._writer = SummaryWriter(str(self._local / "tensorboard"), purge_step=from_iteration + 1)

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Logs one line and one point of each curve."""
        self._file.write(json.dumps({"iteration": iteration, **metrics}) + "\n")
        publish(self._run, metrics)
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, iteration)
        if time.monotonic() - self._uploaded > UPLOAD_EVERY_S:
            self.flush()

    def histogram(self, key: str, values: NDArray[np.float32], iteration: int) -> None:
        """Logs a histogram of the values, to TensorBoard only."""
        self._writer.add_histogram(key, values, iteration)

    def flush(self) -> None:
        """Makes both what was logged so far, also on an object store."""
        self._writer.flush()
        self._uploaded = time.monotonic()
        if isinstance(self._directory, Path):
            return
        for file in self._local.rglob("*"):
            if file.is_file():
                (self._directory / file.relative_to(self._local).as_posix()).upload(file)

    def close(self) -> None:
        """Flushes and closes both."""
        self.flush()
        self._file.close()
        self._writer.close()
        if not isinstance(self._directory, Path):
            self._temporary.cleanup()


def read_metrics(path: StoredPath) -> list[dict[str, float]]:
    """All complete lines of a metrics.jsonl; skips a last line cut off by a crash."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]
