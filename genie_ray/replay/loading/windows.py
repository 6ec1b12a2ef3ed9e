"""Batches of windows: T consecutive frames of one episode with the action taken on each.

Training reads windows at random. Every epoch draws new window starts in each episode, so that with a stride above 1 all
positions are seen over the epochs.

Axis letters: B windows of a batch, T frames of a window, H, W and C of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from genie_ray.replay.dataset import EpisodeRef, ReplayDataset, Split
from genie_ray.replay.loading.batches import BatchReader, Column, Examples, OpenFiles
from genie_ray.replay.loading.mixture import ReplayMix, mix_of
from genie_ray.replay.loading.order import Integers, Supply
from genie_ray.replay.loading.shuffled import LoaderOptions, ShuffledLoader, ordered_batches, require_positive
from genie_ray.replay.schema import frames_of

SAMPLED_BLOCK = 8  # batches decoded together in a sample


class Batch(TypedDict):
    """Windows to train on. `actions_BT[:, t]` is taken on frame t and leads to frame t+1."""

    frames_BTHWC: Tensor  # uint8
    actions_BT: Tensor  # int64; 0 on a window's last frame if that ends the episode


class GameBatch(Batch):
    """Windows with the game of each."""

    games: list[str]


class WindowLoader(ShuffledLoader[Batch]):
    """An endless iterator over shuffled batches of windows.

    Args:
        replay: the replay dataset, or several mixed.
        split: which of its episodes.
        length: T, frames per window.
        stride: frames between the starts of successive windows of an episode.
        options: as for `ShuffledLoader`, whose examples are windows.

    Raises:
        ValueError: an invalid argument, or a split with too few windows for one batch on every rank.
    """

    def __init__(
        self,
        replay: ReplayDataset | ReplayMix,
        *,
        split: Split,
        length: int = 16,
        stride: int,
        **options: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(_windows(mix_of(replay), split, length, stride), **options)


def iter_windows(
    replay: ReplayDataset | ReplayMix,
    split: Split,
    length: int,
    *,
    stride: int,
    batch_size: int,
    limit: int | None = None,
) -> Iterator[GameBatch]:
    """One pass over the windows of a split, in order: by episode, then by first frame 0, stride, 2·stride, …

    Args:
        replay, split, length, stride, batch_size: as for `WindowLoader`; the last batch may be smaller.
        limit: at most this many windows, spread evenly over the split (of mixed datasets, each has its share of the
            limit); None for all.

    Raises:
        ValueError: an invalid argument, or no window of this length.
    """
    windows = _windows(mix_of(replay), split, length, stride)
    for games, batch in ordered_batches(windows, batch_size=batch_size, limit=limit):
        yield {**batch, "games": games}


def iter_sampled_windows(
    replay: ReplayDataset | ReplayMix,
    split: Split,
    length: int,
    *,
    per_episode: int,
    batch_size: int,
    episodes: Integers,
) -> Iterator[tuple[Integers, Batch]]:
    """A few windows of some episodes, spread evenly over each, with the episodes' numbers [B].

    Args:
        replay, split, length: as for `WindowLoader`.
        per_episode: windows of each; fewer of an episode with fewer positions.
        batch_size: windows of a batch; the last may be smaller.
        episodes: numbers in the order of `WindowLoader.weigh`.
    """
    windows = _windows(mix_of(replay), split, length, stride=1)
    firsts = windows.supply.positions[episodes] - 1
    spread = np.unique(
        np.stack(
            [
                np.repeat(episodes, per_episode),
                np.rint(np.outer(firsts, (np.arange(per_episode) + 0.5) / per_episode)).astype(np.int64).ravel(),
            ],
            axis=1,
        ),
        axis=0,
    )
    reader, block = BatchReader(windows), SAMPLED_BLOCK * batch_size
    for start in range(0, len(spread), block):
        part = spread[start : start + block]
        for number, batch in enumerate(reader.batches(part, batch_size)):
            yield part[number * batch_size : (number + 1) * batch_size, 0], batch


def _windows(mix: ReplayMix, split: Split, length: int, stride: int) -> Examples[Batch]:
    require_positive(length=length, stride=stride)
    long_enough = []
    for dataset, episodes in zip(mix.datasets, mix.split(split), strict=True):
        long_enough.append([ref for ref in episodes if ref.length + 1 >= length])
        if not long_enough[-1]:
            longest = max(ref.length for ref in episodes) + 1
            raise ValueError(
                f"split {split!r} of {dataset.root} has no window of {length} frames: its longest episode has {longest}"
            )
    files = OpenFiles()

    def read(ref: EpisodeRef) -> tuple[Column, Column]:
        table = files.read(ref, ["frame", "action"])
        return frames_of(table), np.maximum(table["action"].to_numpy(), 0)  # an episode's last frame has action −1

    def batch(frames_BTHWC: Tensor, actions_BT: Tensor) -> Batch:
        return {"frames_BTHWC": frames_BTHWC, "actions_BT": actions_BT.to(torch.int64)}

    return Examples(
        name=f"windows of {length} frames at stride {stride}",
        source=mix.name(split),
        episodes=[ref for refs in long_enough for ref in refs],
        supply=Supply.of([[ref.length + 1 for ref in refs] for refs in long_enough], mix.shares, length, stride),
        read=read,
        batch=batch,
    )
