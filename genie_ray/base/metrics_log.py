"""Training metrics: one JSON object per line in metrics.jsonl, the same in TensorBoard and as gauges of the cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genie_ray.base.files import write_atomically
from genie_ray.base.progress import publish


class MetricsLog:
    """Appends to `directory/metrics.jsonl` and `directory/tensorboard/`, and publishes the latest values.

    A resumed run repeats the iterations after its checkpoint. What an earlier attempt logged beyond `from_iteration` is
    therefore dropped first, so that no iteration appears twice.
    """

    def __init__(self, directory: Path, from_iteration: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        directory.mkdir(parents=True, exist_ok=True)
        self._run = "/".join(directory.parts[-2:])
        path = directory / "metrics.jsonl"
        kept = [line for line in read_metrics(path) if line["iteration"] <= from_iteration]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomically(path, lambda file: file.write_text(text))
        self._file = path.open("a", buffering=1)
        self._writer = SummaryWriter(str(directory / "tensorboard"), purge_step=from_iteration + 1)

    def write(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Logs one line and one point of each curve."""
        self._file.write(json.dumps({"iteration": iteration, **metrics}) + "\n")
        publish(self._run, metrics)
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, iteration)

    def histogram(self, key: str, values: NDArray[np.float32], iteration: int) -> None:
        """Logs a histogram of the values, to TensorBoard only."""
        self._writer.add_histogram(key, values, iteration)

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._writer.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """All complete lines of a metrics.jsonl; skips a last line cut off by a crash."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]
