"""Windows of replay: T consecutive frames of one episode with the action taken on each, in batches.

Training reads windows at random. Every epoch draws anew where in each episode the windows begin, so that with a stride
above 1 all positions are seen over the epochs.

Axis letters: B windows of a batch, T frames of a window, H, W and C of a frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from genie_ray.replay.dataset import EpisodeRef, ReplayDataset, Split
from genie_ray.replay.shuffled import ShuffledLoader, ordered_batches, require_positive


class Batch(TypedDict):
    """Windows to train on. `actions_BT[:, t]` is taken on frame t and leads to frame t+1."""

    frames_BTHWC: torch.Tensor  # uint8
    actions_BT: torch.Tensor  # int64; 0 for a window's last frame where that ends the episode


class GameBatch(Batch):
    """Windows with the game that each is of."""

    games: list[str]


class WindowLoader(ShuffledLoader[Batch]):
    """An endless iterator over shuffled batches of windows.

    Each epoch holds every window of the split once over all ranks, except for a last incomplete batch, and as many
    batches for every rank. Memory is `shuffle_buffer` windows and one decoded episode.

    Args:
        dataset: the replay dataset.
        split: which of its episodes.
        length: T, frames per window.
        stride: frames between the beginnings of successive windows of an episode.
        batch_size, seed, rank, world_size, shuffle_buffer: as for `ShuffledLoader`, whose examples are windows.

    Raises:
        ValueError: an impossible argument, or a split with too few windows for one batch on every rank.
    """

    def __init__(
        self,
        dataset: ReplayDataset,
        *,
        split: Split,
        length: int = 16,
        stride: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        shuffle_buffer: int = 512,
    ) -> None:
        self._dataset, self._length, self._stride = dataset, length, stride
        episodes = _episodes_with_windows(dataset, split, length, stride)
        fewest = sum(max(1, _positions(ref, length) // stride) for ref in episodes)
        super().__init__(
            episodes,
            fewest=fewest,
            supply=f"split {split!r} of {dataset.root} has {fewest} windows of {length} frames at stride {stride}",
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            shuffle_buffer=shuffle_buffer,
        )

    def _places(self, ref: EpisodeRef, rng: np.random.Generator) -> NDArray[np.int64]:
        """First frames, `stride` apart, beginning anywhere."""
        positions = _positions(ref, self._length)
        return np.arange(rng.integers(min(self._stride, positions)), positions, self._stride)

    def _buffer(self, count: int) -> _Windows:
        return _Windows(self._dataset, self._episodes, count, self._length)


def iter_windows(
    dataset: ReplayDataset, split: Split, length: int, *, stride: int, batch_size: int, limit: int | None = None
) -> Iterator[GameBatch]:
    """One pass over the windows of a split, in order: by episode, then by first frame 0, stride, 2·stride, …

    Args:
        dataset, split, length, stride, batch_size: as for `WindowLoader`; the last batch may be smaller.
        limit: at most this many windows, spread evenly over the split; None for all.

    Raises:
        ValueError: an impossible argument, or no window of this length.
    """
    episodes = _episodes_with_windows(dataset, split, length, stride)
    windows = np.array(
        [(i, start) for i, ref in enumerate(episodes) for start in range(0, _positions(ref, length), stride)]
    )
    for chosen in ordered_batches(windows, batch_size=batch_size, limit=limit):
        buffer = _Windows(dataset, episodes, len(chosen), length)
        buffer.read(chosen)
        games = [episodes[index].game for index in chosen[:, 0]]
        yield {**buffer.batch(0, len(chosen)), "games": games}


def _episodes_with_windows(dataset: ReplayDataset, split: Split, length: int, stride: int) -> list[EpisodeRef]:
    require_positive(length=length, stride=stride)
    episodes = dataset.split(split)
    if not episodes:
        raise ValueError(f"split {split!r} of {dataset.root} has no episodes")
    long_enough = [ref for ref in episodes if _positions(ref, length) > 0]
    if not long_enough:
        longest = max(ref.length for ref in episodes) + 1
        raise ValueError(
            f"split {split!r} of {dataset.root} has no window of {length} frames: its longest episode has {longest}"
        )
    return long_enough


def _positions(ref: EpisodeRef, length: int) -> int:
    """How many first frames a window can have in an episode; not positive if there is none."""
    return ref.length + 1 - length + 1


class _Windows:
    """Room for N decoded windows: frames [N, T, H, W, C] and actions [N, T]."""

    def __init__(self, dataset: ReplayDataset, episodes: Sequence[EpisodeRef], count: int, length: int) -> None:
        self._dataset, self._episodes = dataset, episodes
        self._frames = np.empty((count, length, *dataset.metadata.frame_shape), np.uint8)
        self._actions = np.empty((count, length), np.int64)

    def read(self, examples: NDArray[np.int64]) -> None:
        """Fill in windows [≤N, 2] (index of the episode, first frame), decoding each episode once."""
        length = self._actions.shape[1]
        for index in np.unique(examples[:, 0]):
            frames, actions = self._dataset.read_frames_and_actions(self._episodes[index])
            for n in np.flatnonzero(examples[:, 0] == index):
                start = examples[n, 1]
                self._frames[n] = frames[start : start + length]
                self._actions[n] = actions[start : start + length]
        np.maximum(self._actions, 0, out=self._actions)  # an episode's last frame has action −1

    def batch(self, start: int, stop: int) -> Batch:
        """A copy of some of the windows."""
        return {
            "frames_BTHWC": torch.from_numpy(self._frames[start:stop].copy()),
            "actions_BT": torch.from_numpy(self._actions[start:stop].copy()),
        }
