"""Windows of replay: T consecutive frames of one episode with the action taken on each, in batches.

Training reads windows at random. Every epoch draws anew where in each episode the windows begin, so that with a stride
above 1 all positions are seen over the epochs, and deals them in small portions of an episode to blocks, which are
shuffled in memory: the shuffle buffer. Each rank reads its own part of that order. All of it follows from the seed, the
epoch, the rank and the world size, so a position in an epoch is enough to resume exactly.

Axis letters: B windows of a batch, T frames of a window, H, W and C of a frame.
"""

from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from genie_ray.replay.dataset import EpisodeRef, ReplayDataset, Split

WINDOWS_PER_VISIT = 16  # of one episode that enter the order together: decoding it costs about as much as copying them


class Batch(TypedDict):
    """Windows to train on. `actions_BT[:, t]` is taken on frame t and leads to frame t+1."""

    frames_BTHWC: torch.Tensor  # uint8
    actions_BT: torch.Tensor  # int64; 0 for a window's last frame where that ends the episode


class GameBatch(Batch):
    """Windows with the game that each is of."""

    games: list[str]


class WindowLoader:
    """An endless iterator over shuffled batches of windows.

    Each epoch holds every window of the split once over all ranks, except for a last incomplete batch, and as many
    batches for every rank. Memory is `shuffle_buffer` windows and one decoded episode.

    Args:
        dataset: the replay dataset.
        split: which of its episodes.
        length: T, frames per window.
        stride: frames between the beginnings of successive windows of an episode.
        batch_size: B, windows per batch of this rank.
        seed: of the order.
        rank: which part of the order is read here.
        world_size: how many parts there are.
        shuffle_buffer: windows shuffled in memory, rounded up to whole batches.

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
        _require_positive(batch_size=batch_size, world_size=world_size, shuffle_buffer=shuffle_buffer)
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}: must be from 0 to {world_size - 1}")
        self._dataset = dataset
        self._episodes = _episodes_with_windows(dataset, split, length, stride)
        self._length, self._stride, self._batch_size = length, stride, batch_size
        self._seed, self._rank, self._world_size = seed, rank, world_size
        self._block_size = -(-shuffle_buffer // batch_size) * batch_size
        fewest = sum(max(1, _positions(ref, length) // stride) for ref in self._episodes)
        if fewest < batch_size * world_size:
            raise ValueError(
                f"split {split!r} of {dataset.root} has {fewest} windows of {length} frames at stride {stride}: "
                f"fewer than one batch of {batch_size} for each of {world_size} ranks"
            )
        self._batches = self._epoch_batches(epoch=0, first_batch=0)
        self._epoch, self._batch = 0, 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self._batches, None)
        if batch is None:
            self._epoch, self._batch = self._epoch + 1, 0
            self._batches = self._epoch_batches(self._epoch, first_batch=0)
            batch = next(self._batches)
        self._batch += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        """The position: the epoch, and the windows of it that all ranks together have been given."""
        return {"epoch": self._epoch, "windows": self._batch * self._batch_size * self._world_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position.

        The batches that follow are those that would have followed there, if all arguments are the same. With another
        batch or world size the epoch goes on as far in, rounded down to a whole batch: some of its windows then come
        twice and others not at all.
        """
        self._epoch = state["epoch"]
        self._batch = state["windows"] // (self._batch_size * self._world_size)
        self._batches = self._epoch_batches(self._epoch, self._batch)

    def _epoch_batches(self, epoch: int, first_batch: int) -> Iterator[Batch]:
        """This rank's batches of an epoch, from `first_batch` on."""
        order = self._rank_order(epoch)
        buffer = _Windows(min(self._block_size, len(order)), self._length, self._dataset.metadata.frame_shape)
        block = -1
        for start in range(first_batch * self._batch_size, len(order), self._batch_size):
            if start // self._block_size != block:
                block = start // self._block_size
                windows = order[block * self._block_size : (block + 1) * self._block_size]
                buffer.read(self._dataset, self._episodes, windows)
            offset = start % self._block_size
            yield buffer.batch(offset, offset + self._batch_size)

    def _rank_order(self, epoch: int) -> NDArray[np.int64]:
        """The windows that this rank reads in an epoch [N, 2]: index of the episode, first frame; whole batches."""
        rng = np.random.default_rng((self._seed, epoch))
        visits = []
        for index, ref in enumerate(self._episodes):
            positions = _positions(ref, self._length)
            starts = np.arange(rng.integers(min(self._stride, positions)), positions, self._stride)
            windows = np.stack([np.full_like(starts, index), rng.permutation(starts)], axis=1)
            visits += np.split(windows, range(WINDOWS_PER_VISIT, len(windows), WINDOWS_PER_VISIT))
        order = np.concatenate([visits[i] for i in rng.permutation(len(visits))])
        share = len(order) // (self._batch_size * self._world_size) * self._batch_size
        order = order[self._rank * share : (self._rank + 1) * share]
        blocks = np.split(order, range(self._block_size, share, self._block_size))
        return np.concatenate([rng.permutation(block) for block in blocks])


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
    _require_positive(batch_size=batch_size)
    episodes = _episodes_with_windows(dataset, split, length, stride)
    windows = np.array(
        [(i, start) for i, ref in enumerate(episodes) for start in range(0, _positions(ref, length), stride)]
    )
    if limit is not None and limit < len(windows):
        windows = windows[np.arange(limit) * len(windows) // limit]
    for first in range(0, len(windows), batch_size):
        chosen = windows[first : first + batch_size]
        buffer = _Windows(len(chosen), length, dataset.metadata.frame_shape)
        buffer.read(dataset, episodes, chosen)
        games = [episodes[index].game for index in chosen[:, 0]]
        yield {**buffer.batch(0, len(chosen)), "games": games}


def _require_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} is {value}: must be at least 1")


def _episodes_with_windows(dataset: ReplayDataset, split: Split, length: int, stride: int) -> list[EpisodeRef]:
    _require_positive(length=length, stride=stride)
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

    def __init__(self, count: int, length: int, frame_shape: tuple[int, int, int]) -> None:
        self._frames = np.empty((count, length, *frame_shape), np.uint8)
        self._actions = np.empty((count, length), np.int64)

    def read(self, dataset: ReplayDataset, episodes: Sequence[EpisodeRef], windows: NDArray[np.int64]) -> None:
        """Fill in windows [≤N, 2] (index of the episode, first frame), decoding each episode once."""
        length = self._actions.shape[1]
        for index in np.unique(windows[:, 0]):
            frames, actions = dataset.read_frames_and_actions(episodes[index])
            for n in np.flatnonzero(windows[:, 0] == index):
                start = windows[n, 1]
                self._frames[n] = frames[start : start + length]
                self._actions[n] = actions[start : start + length]
        np.maximum(self._actions, 0, out=self._actions)  # an episode's last frame has action −1

    def batch(self, start: int, stop: int) -> Batch:
        """A copy of some of the windows."""
        return {
            "frames_BTHWC": torch.from_numpy(self._frames[start:stop].copy()),
            "actions_BT": torch.from_numpy(self._actions[start:stop].copy()),
        }
