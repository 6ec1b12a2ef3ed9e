"""Progress of long tasks: a rich bar in a terminal, an occasional line in a log file, and gauges of the cluster."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from genie_ray.storage.paths import StoredPath

console = Console(highlight=False)
notices = Console(highlight=False, stderr=True)
"""For the progress of commands whose output other programs read."""
POLL_SECONDS = 1.0
POLL_REMOTE_SECONDS = 10.0  # each look at an object store is a request
LOG_SECONDS = 20.0


class Bar:
    """A progress bar with a line of live figures beside it; in a log file, one line every 20 seconds and at the end."""

    def __init__(self, title: str, total: int, to: Console) -> None:
        self._total, self._title, self._console, self._live = total, title, to, to.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=to,
            disable=not self._live,
        )
        self._task = self._progress.add_task(title, total=total, figures="")
        self._last_logged = 0.0

    def update(self, done: int, **figures: float | int | str) -> None:
        """Shows how much is done and the figures, e.g. `loss=0.12`."""
        text = " · ".join(f"{key} {_short(value)}" for key, value in figures.items())
        self._progress.update(self._task, completed=done, figures=text)
        elapsed = self._progress.get_time() - (self._progress.tasks[0].start_time or 0.0)
        finished = done >= self._total
        publish(self._title, {"progress": done / max(1, self._total)})
        if not self._live and (finished or elapsed - self._last_logged >= LOG_SECONDS):
            self._last_logged = elapsed
            self._console.print(
                f"{self._title}: {done:,} of {self._total:,} in {elapsed:.0f} s · {text}", soft_wrap=True
            )


@contextmanager
def progress_bar(title: str, total: int, *, to: Console = console) -> Iterator[Bar]:
    """Shows a bar while the block runs."""
    bar = Bar(title, total, to)
    with bar._progress:
        yield bar


@contextmanager
def follow_metrics(path: StoredPath, *, total: int, title: str) -> Iterator[None]:
    """Shows the last line of a metrics file that other processes write, while the block runs."""
    stop = threading.Event()
    poll = POLL_SECONDS if isinstance(path, Path) else POLL_REMOTE_SECONDS

    def follow(bar: Bar) -> None:
        shown: Mapping[str, float] = {}
        while True:
            ended = stop.wait(poll)
            latest = last_metrics(path)
            if latest and latest != shown:
                shown = latest
                bar.update(int(latest["iteration"]), **{k: v for k, v in latest.items() if k in SHOWN})
            if ended:
                return

    with progress_bar(title, total) as bar:
        thread = threading.Thread(target=follow, args=(bar,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


_gauges: dict[str, Any] = {}


def publish(run: str, figures: Mapping[str, float]) -> None:
    """Hands figures to the metrics endpoint of this node's Ray, as `ray_genie_ray_<name>{run="…"}` (Prometheus).

    Ray's tags are ASCII, so other letters, as in a directory's name, are written as in a URL. Without a running Ray it
    does nothing.
    """
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return
    from ray.util.metrics import Gauge

    for key, value in figures.items():
        name = "genie_ray_" + re.sub(r"\W", "_", key, flags=re.ASCII)
        if name not in _gauges:
            _gauges[name] = Gauge(name, description=_ascii(key), tag_keys=("run",))
        _gauges[name].set(float(value), tags={"run": _ascii(run)})


SHOWN = ("loss", "psnr", "accuracy", "validation_loss", "validation_psnr", "steps_per_second", "frames_per_second")


def last_metrics(path: StoredPath) -> dict[str, float]:
    """The last complete line of a metrics.jsonl; empty if there is none yet."""
    if not path.exists():
        return {}
    lines = path.read_bytes().split(b"\n")[:-1]
    return json.loads(lines[-1]) if lines else {}


def _ascii(text: str) -> str:
    return re.sub(r"[^\x20-\x7e]+", lambda letters: quote(letters[0]), text)


def _short(value: float | int | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1_000 else f"{value:.4g}"
