"""LeRobot's dataset format, v3.0: a replay dataset for programs that train on LeRobot data.

    meta/info.json                                sizes, features, where files are
    meta/tasks.parquet, meta/stats.json           one task a game; statistics of all features
    meta/episodes/chunk-000/file-000.parquet      one row an episode: where it is, and its statistics
    data/chunk-000/file-000.parquet               one row a step, with the frame as PNG: no pixel is lost

A row has the frame (`observation.image`), the action taken on it (`action`, one-hot, named in info.json) and what that
brought (`next.reward`, the game's own; `next.done`; `next.truncated`). No action is taken on an episode's last frame,
which is left out, as are log-probabilities, uncertainty, emulator variables and large frames.

Source: `lerobot/datasets/` (`utils.py`, `lerobot_dataset.py`, `compute_stats.py`) of lerobot 0.4.4.
Axes: T actions of an episode, A actions to choose from, H W C pixels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from genie_ray.base.progress import notices, progress_bar
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.schema import Episode

VERSION = "v3.0"
CHUNK_FILES = 1_000  # of a folder
FILE_MB = 100
TICKS_PER_SECOND = 60  # of a console
USUAL_SKIP = 4  # ticks per step, where the dataset does not tell
FILE = "chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
IMAGE = "observation.image"
COUNTERS = ("frame_index", "episode_index", "index", "task_index")
Stats = dict[str, NDArray[np.float64]]


def export_lerobot(dataset: ReplayDataset, output: Path) -> Path:
    """Writes a replay dataset in LeRobot's format; returns the directory.

    Raises:
        ValueError: `output` is not empty, or a file of the dataset is damaged.
    """
    if output.exists() and any(output.iterdir()):
        raise ValueError(f"{output} is not empty: give another directory")
    features, fps = _features(dataset), _fps(dataset)
    schema = _schema(features)
    tasks = {game: f"Play {game}." for game in sorted(dataset.metadata.counts)}
    files = _Files(output / "data", schema)
    rows: list[dict[str, Any]] = []
    total = _Totals()
    index = 0
    with files, progress_bar("export", len(dataset.episodes), to=notices) as bar:
        for number, ref in enumerate(dataset.episodes):
            episode = dataset.read(ref)
            columns = _columns(episode, len(dataset.metadata.action_names), fps)
            first, index = index, index + len(episode.actions)
            columns["index"] = np.arange(first, index)
            columns["episode_index"] = np.full(index - first, number)
            columns["task_index"] = np.full(index - first, list(tasks).index(episode.game))
            pictures = list(_png(episode.frames[:-1]))
            place = files.write(_table(columns, pictures, schema), sum(map(len, pictures)))
            stats = _stats(columns | {IMAGE: episode.frames[:-1]})
            total.add(stats)
            row = {"episode_index": number, "tasks": [tasks[episode.game]], "length": index - first}
            row |= {"data/chunk_index": place[0], "data/file_index": place[1]}
            row |= {"dataset_from_index": first, "dataset_to_index": index}
            row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
            row |= {f"stats/{key}/{name}": value.tolist() for key, of in stats.items() for name, value in of.items()}
            rows.append(row)
            bar.update(number + 1)
    meta = output / "meta"
    (meta / "episodes" / "chunk-000").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), meta / "episodes" / "chunk-000" / "file-000.parquet")
    pd.DataFrame({"task_index": range(len(tasks))}, index=pd.Index(tasks.values(), name="task")).to_parquet(
        meta / "tasks.parquet"
    )
    stats_of = {key: {name: value.tolist() for name, value in of.items()} for key, of in total.stats().items()}
    (meta / "stats.json").write_text(json.dumps(stats_of, indent=4))
    info = {
        "codebase_version": VERSION,
        "robot_type": None,
        "total_episodes": len(rows),
        "total_frames": index,
        "total_tasks": len(tasks),
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": FILE_MB,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{len(rows)}"},
        "data_path": f"data/{FILE}",
        "video_path": None,
        "features": features,
    }
    (output / "README.md").write_text(_card(dataset))
    (meta / "info.json").write_text(json.dumps(info, indent=4))  # the last: with it, the dataset is whole
    return output


def _fps(dataset: ReplayDataset) -> int:
    """Steps a second of the game, rounded."""
    skip = dataset.metadata.config.get("env", {}).get("frame_skip", USUAL_SKIP)
    return max(1, round(TICKS_PER_SECOND / skip))


def _features(dataset: ReplayDataset) -> dict[str, dict[str, Any]]:
    """LeRobot's description of the columns."""
    names, shape = list(dataset.metadata.action_names), list(dataset.metadata.frame_shape)

    def one(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "shape": [1], "names": None}

    return {
        IMAGE: {"dtype": "image", "shape": shape, "names": ["height", "width", "channels"]},
        "action": {"dtype": "float32", "shape": [len(names)], "names": names},
        "next.reward": one("float32"),
        "next.done": one("bool"),
        "next.truncated": one("bool"),
        "timestamp": one("float32"),
        **{name: one("int64") for name in COUNTERS},
    }


def _schema(features: dict[str, dict[str, Any]]) -> pa.Schema:
    """The columns as the library `datasets` types them: its description travels in the metadata."""
    fields: list[pa.Field] = []
    described: dict[str, dict[str, Any]] = {}
    what: dict[str, Any]
    for name, feature in features.items():
        dtype = feature["dtype"]
        if dtype == "image":
            field, what = pa.struct([("bytes", pa.binary()), ("path", pa.string())]), {"_type": "Image"}
        elif feature["shape"] == [1]:
            field, what = pa.type_for_alias(dtype), {"dtype": dtype, "_type": "Value"}
        else:
            (length,) = feature["shape"]
            field = pa.list_(pa.type_for_alias(dtype), length)
            what = {"feature": {"dtype": dtype, "_type": "Value"}, "length": length, "_type": "Sequence"}
        fields.append(pa.field(name, field))
        described[name] = what
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": described}})})


def _columns(episode: Episode, num_actions: int, fps: int) -> dict[str, NDArray[Any]]:
    """The columns of an episode's rows, but for its frames and its place in the dataset."""
    T = len(episode.actions)
    last = np.arange(T) == T - 1
    return {
        "action": np.eye(num_actions, dtype=np.float32)[episode.actions],
        "next.reward": episode.reward_env.astype(np.float32),
        "next.done": last & (episode.terminated or episode.truncated),
        "next.truncated": last & episode.truncated,
        "timestamp": (np.arange(T) / fps).astype(np.float32),
        "frame_index": np.arange(T),
    }


def _table(columns: dict[str, NDArray[Any]], pictures: list[bytes], schema: pa.Schema) -> pa.Table:
    arrays = []
    for field in schema:
        if field.name == IMAGE:
            arrays.append(pa.array([{"bytes": picture, "path": None} for picture in pictures], field.type))
        else:
            arrays.append(pa.array(columns[field.name].tolist(), field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _png(frames_THWC: NDArray[np.uint8]) -> Iterator[bytes]:
    for frame in frames_THWC:
        yield cv2.imencode(".png", frame[..., ::-1])[1].tobytes()


class _Files:
    """The data files, each of about `FILE_MB` and whole episodes."""

    def __init__(self, directory: Path, schema: pa.Schema) -> None:
        self._directory, self._schema = directory, schema
        self._number, self._bytes = 0, 0
        self._writer: pq.ParquetWriter | None = None

    def write(self, table: pa.Table, size: int) -> tuple[int, int]:
        """Appends an episode of so many bytes; returns chunk and file."""
        if self._writer is not None and self._bytes + size > FILE_MB * 2**20:
            self._writer.close()
            self._writer, self._bytes, self._number = None, 0, self._number + 1
        chunk, file = divmod(self._number, CHUNK_FILES)
        if self._writer is None:
            path = self._directory / FILE.format(chunk_index=chunk, file_index=file)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(path, self._schema, compression="snappy")
        self._writer.write_table(table)
        self._bytes += size
        return chunk, file

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()


def _stats(columns: dict[str, NDArray[Any]]) -> dict[str, Stats]:
    """Minimum, maximum, mean and standard deviation of each value; of an image's channels in [0, 1], [C, 1, 1]."""
    found: dict[str, Stats] = {}
    shape: tuple[int, ...]
    for name, values in columns.items():
        if name == IMAGE:
            rows, shape = values.reshape(-1, values.shape[-1]) / 255, (values.shape[-1], 1, 1)
        else:
            rows, shape = values.reshape(len(values), -1).astype(np.float64), (-1,)
        of = {"min": rows.min(axis=0), "max": rows.max(axis=0), "mean": rows.mean(axis=0), "std": rows.std(axis=0)}
        found[name] = {key: value.reshape(shape) for key, value in of.items()} | {"count": np.array([len(values)])}
    return found


class _Totals:
    """The same statistics of many episodes together."""

    def __init__(self) -> None:
        self._episodes: list[dict[str, Stats]] = []

    def add(self, stats: dict[str, Stats]) -> None:
        self._episodes.append(stats)

    def stats(self) -> dict[str, Stats]:
        """Of all rows of all episodes: the squares of all values are the variance and the squared mean of each part."""
        found = {}
        for name in self._episodes[0]:
            parts = {key: np.stack([stats[name][key] for stats in self._episodes]) for key in self._episodes[0][name]}
            counts = parts["count"].reshape(-1, *[1] * (parts["mean"].ndim - 1))
            share = counts / counts.sum()
            mean = (share * parts["mean"]).sum(axis=0)
            variance = (share * (parts["std"] ** 2 + (parts["mean"] - mean) ** 2)).sum(axis=0)
            found[name] = {
                "min": parts["min"].min(axis=0),
                "max": parts["max"].max(axis=0),
                "mean": mean,
                "std": np.sqrt(variance),
                "count": parts["count"].sum(axis=0),
            }
        return found


def _card(dataset: ReplayDataset) -> str:
    """The card, with the header by which hubs find the rows."""
    metadata = dataset.metadata
    return f"""---
tags: [LeRobot, games]
task_categories: [robotics]
configs:
- config_name: default
  data_files: data/*/*.parquet
---

# Play of {", ".join(sorted(metadata.counts))}

A replay dataset of GenieRay (content hash {dataset.content_hash()}), played by {metadata.policy}, in LeRobot's format
{VERSION}. `action` is one-hot: {", ".join(metadata.action_names)}.
"""
