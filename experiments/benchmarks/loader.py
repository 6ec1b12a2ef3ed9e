"""How fast windows are loaded from local disk on one core, compared with other ways to read the same frames.

Without --data, it first plays two games. Then it measures, on one core and in several rounds: decoding all files with
bare pyarrow; the loader, at several strides and shuffle buffer sizes; and decoding windows from folders of numbered
JPEGs. Figures are medians over the rounds. The files are in the page cache, as those of a training soon are. Finally
it measures the peak memory of an epoch of an eighth of the data and of all of it, each in its own process.

    python experiments/benchmarks/loader.py --steps 50000 --keep data/benchmark
    python experiments/benchmarks/loader.py --data data/benchmark --json loader.json
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table

from genie_ray.replay.dataset import ReplayDataset, count_episodes, index_episodes, shard_paths
from genie_ray.replay.loading.windows import WindowLoader
from genie_ray.replay.writer import read_metadata, write_metadata

GAMES = ("Kangaroo-Atari2600-v0", "Hero-Atari2600-v0")
LENGTH = 16  # frames of a window
BATCH = 80  # paper: of the dynamics
JPEG_QUALITY = 95
JPEG_FRAMES = 2_000  # at most
MEMORY_BUFFER = 256  # windows
PARTS = 8  # the small dataset is one of them


@dataclass
class Case:
    """One way to read windows."""

    name: str
    run: Callable[[], int]  # reads windows and returns their number
    rates: list[float] = field(default_factory=list)  # windows per second, one per turn

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


def play(root: Path, steps: int) -> None:
    """Random play of the games: `steps` steps of each, in shards of an eighth."""
    settings = [f"collection.steps_per_shard={-(-steps // PARTS)}", f"games={json.dumps(GAMES)}"]
    command = [sys.executable, "-m", "genie_ray", "collect", str(root), "--steps", str(steps), *settings]
    subprocess.run(command, check=True)


def an_eighth(dataset: ReplayDataset, root: Path) -> ReplayDataset:
    """A dataset of the first shards of each game, an eighth of them."""
    for _, shards in itertools.groupby(shard_paths(dataset.root), key=lambda path: path.parent):
        paths = list(shards)
        for path in paths[: max(1, len(paths) // PARTS)]:
            (root / path.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / path.parent.name)
    counts = count_episodes(index_episodes(root))
    write_metadata(root, dataclasses.replace(read_metadata(dataset.root), counts=counts))
    return ReplayDataset(root)


def bare(dataset: ReplayDataset) -> Callable[[], int]:
    """Decodes every row group of open files; counts the windows that the frames would make without overlap."""
    files = {path: pq.ParquetFile(path, memory_map=True) for path in shard_paths(dataset.root)}

    def run() -> int:
        frames = 0
        for file in files.values():
            for index in range(file.num_row_groups):
                frames += len(file.read_row_group(index, columns=["frame", "action"], use_threads=False))
        return frames // LENGTH

    return run


def loader(dataset: ReplayDataset, stride: int, shuffle_buffer: int, windows: int) -> Callable[[], int]:
    """Loads whole batches, continuing where the last run ended."""
    batches = WindowLoader(
        dataset, split="all", length=LENGTH, stride=stride, batch_size=BATCH, seed=0, shuffle_buffer=shuffle_buffer
    )
    next(batches)  # allocates memory once

    def run() -> int:
        return sum(len(batch["frames_BTHWC"]) for batch in itertools.islice(batches, windows // BATCH))

    return run


def jpegs(dataset: ReplayDataset, root: Path, windows: int) -> Callable[[], int]:
    """Writes episodes as folders of JPEGs, numbered by step, and reads random windows of them."""
    lengths: dict[Path, int] = {}
    for ref in dataset.episodes:
        if sum(lengths.values()) + ref.length > JPEG_FRAMES and lengths:
            break
        folder = root / ref.episode_id.replace("/", "_")
        folder.mkdir(parents=True)
        frames, _ = dataset.read_frames_and_actions(ref)
        for step, frame in enumerate(frames):
            quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            cv2.imwrite(str(folder / f"{step:05d}.jpg"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), quality)
        lengths[folder] = len(frames)
    rng = np.random.default_rng(0)
    folders = [folder for folder, length in lengths.items() if length >= LENGTH]

    def run() -> int:
        batch_BTHWC = np.empty((windows, LENGTH, *dataset.metadata.frame_shape), np.uint8)
        for window_THWC in batch_BTHWC:
            folder = folders[rng.integers(len(folders))]
            start = rng.integers(lengths[folder] - LENGTH + 1)
            for step, frame in enumerate(window_THWC, start=start):
                cv2.cvtColor(cv2.imread(str(folder / f"{step:05d}.jpg")), cv2.COLOR_BGR2RGB, dst=frame)
        return windows

    return run


def measure(cases: list[Case], turns: int) -> None:
    """Fills in the rates, on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # inherited by threads that a loader starts later
    for case in cases:
        case.run()
    for turn in range(turns):
        print(f"turn {turn + 1} of {turns}", file=sys.stderr)
        for case in cases:
            begin = time.perf_counter()
            windows = case.run()
            case.rates.append(windows / (time.perf_counter() - begin))
    os.sched_setaffinity(0, cores)


def peak_memory_mb() -> float:
    """Peak memory of this process, as counted by Linux."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1e3


def memory_of_an_epoch(root: Path) -> float:
    """MB by which peak memory grows while a process loads an epoch, without Python, PyTorch and the index."""
    dataset = ReplayDataset(root)
    batches = WindowLoader(
        dataset, split="all", length=LENGTH, stride=LENGTH, batch_size=1, seed=0, shuffle_buffer=MEMORY_BUFFER
    )
    before = peak_memory_mb()
    for _ in itertools.takewhile(lambda _: batches.state_dict()["epoch"] == 0, batches):
        pass
    return peak_memory_mb() - before


def describe(dataset: ReplayDataset) -> dict[str, float]:
    """The size of a dataset."""
    frames = sum(ref.length + 1 for ref in dataset.episodes)
    stored = sum(path.stat().st_size for path in shard_paths(dataset.root))
    pixels = int(np.prod(dataset.metadata.frame_shape))
    return {
        "episodes": len(dataset.episodes),
        "frames": frames,
        "bytes_per_frame": stored / frames,
        "decoded_mb": frames * pixels / 1e6,
    }


def run(dataset: ReplayDataset, scratch: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Measures, prints and returns the figures."""
    cases = [Case("bare pyarrow", bare(dataset))]
    cases += [
        Case(f"loader, stride {stride}, buffer {buffer}", loader(dataset, stride, buffer, arguments.windows))
        for stride in arguments.stride
        for buffer in arguments.buffer
    ]
    cases.append(Case("folders of JPEGs", jpegs(dataset, scratch / "jpegs", 100)))
    measure(cases, arguments.turns)
    size = describe(dataset)
    table = Table(
        title=f"windows of {LENGTH} frames of {dataset.metadata.frame_shape[:2]}, one core; "
        f"{size['frames']:,} frames, {size['bytes_per_frame']:.0f} bytes each"
    )
    for column in ("", "windows/s", "share of bare pyarrow"):
        table.add_column(column, justify="left" if not column else "right")
    for case in cases:
        table.add_row(case.name, f"{case.rate:,.0f}", f"{case.rate / cases[0].rate:.1%}")
    Console(width=110).print(table)

    memory = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for part in (an_eighth(dataset, scratch / "eighth"), dataset):
            memory.append(describe(part) | {"peak_mb": pool.apply(memory_of_an_epoch, [part.root])})
    window_mb = LENGTH * np.prod(dataset.metadata.frame_shape) / 1e6
    for part in memory:
        print(
            f"an epoch of {part['frames']:,} frames ({part['decoded_mb']:,.0f} MB decoded), buffer {MEMORY_BUFFER} "
            f"windows ({MEMORY_BUFFER * window_mb:,.0f} MB): memory grows by {part['peak_mb']:,.0f} MB"
        )
    return {
        "dataset": size,
        "batch": BATCH,
        "turns": arguments.turns,
        "cases": [
            {key: value for key, value in asdict(case).items() if key != "run"} | {"windows_per_second": case.rate}
            for case in cases
        ],
        "memory": memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="replay dataset; default: play games first")
    parser.add_argument("--steps", type=int, default=50_000, help="steps to play of each game")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where to keep the played dataset")
    parser.add_argument("--stride", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--buffer", type=int, nargs="+", default=[512, 2048], help="windows in the shuffle buffer")
    parser.add_argument("--windows", type=int, default=8_000, help="windows that a loader reads per turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.data or arguments.keep or Path(scratch) / "play"
        if arguments.data is None:
            play(root, arguments.steps)
        figures = run(ReplayDataset(root), Path(scratch), arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
