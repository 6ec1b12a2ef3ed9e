"""Replay datasets as Ray Data, for processing or training with it: as rows, or as the windows that training reads.

Frames are tensors. Episodes are read by Ray tasks, in any order; all nodes must see the dataset. Ray must be running.

Axis letters: N rows, T frames of a window, H, W and C of a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import ray.data
from numpy.typing import NDArray

from genie_ray.replay.dataset import EpisodeRef, ReplayDataset, Split, read_row_group
from genie_ray.replay.schema import frames_of

Columns = Mapping[str, NDArray[Any]]
STORED = ["episode_id", "step", "frame", "action", "reward_env", "terminated", "truncated"]


def rows(dataset: ReplayDataset, split: Split = "all") -> ray.data.Dataset:
    """The stored rows: `game`, `episode_id`, `step`, `frame` uint8 [H, W, 3], `action`, `reward_env`,
    `terminated`, `truncated`.

    The last row of an episode has its last frame, action −1 and reward NaN.
    """
    return _by_episode(dataset.split(split), _rows_of)


def windows(dataset: ReplayDataset, split: Split, length: int, *, stride: int) -> ray.data.Dataset:
    """The windows of `iter_windows`: `game`, `episode_id`, `step` of the first frame, `frames` uint8 [T, H, W, 3] and
    `actions` int64 [T], 0 for a last frame that ends its episode.

    Raises:
        ValueError: an invalid length or stride, or no window of this length.
    """
    if length < 1 or stride < 1:
        raise ValueError(f"length is {length} and stride {stride}: must be at least 1")
    long_enough = [ref for ref in dataset.split(split) if ref.length + 1 >= length]
    if not long_enough:
        raise ValueError(f"split {split!r} of {dataset.root} has no window of {length} frames")
    return _by_episode(long_enough, lambda ref: _windows_of(ref, length, stride))


def _by_episode(refs: Sequence[EpisodeRef], read: Callable[[EpisodeRef], Columns]) -> ray.data.Dataset:
    return ray.data.range(len(refs)).map_batches(lambda batch: read(refs[int(batch["id"][0])]), batch_size=1)


def _rows_of(ref: EpisodeRef) -> Columns:
    table = read_row_group(ref.path, ref.row_group, columns=STORED)
    columns = {name: table[name].to_numpy() for name in STORED if name != "frame"}
    return {"game": np.full(len(table), ref.game), **columns, "frame": frames_of(table)}


def _windows_of(ref: EpisodeRef, length: int, stride: int) -> Columns:
    table = read_row_group(ref.path, ref.row_group, columns=["frame", "action"])
    frames, actions = frames_of(table), np.maximum(table["action"].to_numpy(), 0).astype(np.int64)
    starts = np.arange(0, ref.length + 2 - length, stride)
    places_NT = starts[:, None] + np.arange(length)
    return {
        "game": np.full(len(starts), ref.game),
        "episode_id": np.full(len(starts), ref.episode_id),
        "step": starts,
        "frames": frames[places_NT],
        "actions": actions[places_NT],
    }
