"""Pictures of replay: single frames, each with the large frame of the same step, in batches, to train an upscaler on.

Axis letters: B pictures of a batch, M pictures of an episode, H, W and C of a frame; a large frame has the same axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from genie_ray.replay.dataset import EpisodeRef, ReplayDataset, Split
from genie_ray.replay.schema import LargeFrameLayout
from genie_ray.replay.shuffled import ShuffledLoader, ordered_batches


class PictureBatch(TypedDict):
    """Pictures to train on; both are uint8."""

    frames_BHWC: torch.Tensor
    large_BHWC: torch.Tensor


class GamePictureBatch(PictureBatch):
    """Pictures with the game that each is of."""

    games: list[str]


class PictureLoader(ShuffledLoader[PictureBatch]):
    """An endless iterator over shuffled batches of pictures.

    Each epoch holds every picture of the split once over all ranks, except for a last incomplete batch, and as many
    batches for every rank. Memory is `shuffle_buffer` pictures (of 64 and 256 pixels: 0.2 MB) and one decoded episode.

    Args:
        dataset: the replay dataset.
        split: which of its episodes.
        batch_size, seed, rank, world_size, shuffle_buffer: as for `ShuffledLoader`, whose examples are pictures.

    Raises:
        ValueError: an impossible argument, a dataset without large frames, or a split with too few for one batch on
            every rank.
    """

    def __init__(
        self,
        dataset: ReplayDataset,
        *,
        split: Split,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        shuffle_buffer: int = 512,
    ) -> None:
        self._dataset, self._layout = dataset, require_large_frames(dataset)
        episodes = dataset.split(split)
        pictures = sum(self._layout.count(ref.length) for ref in episodes)
        super().__init__(
            episodes,
            fewest=pictures,
            supply=f"split {split!r} of {dataset.root} has {pictures} large frames",
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            shuffle_buffer=shuffle_buffer,
        )

    def _places(self, ref: EpisodeRef, rng: np.random.Generator) -> NDArray[np.int64]:
        """All of them: 0 to M−1."""
        return np.arange(self._layout.count(ref.length))

    def _buffer(self, count: int) -> _Pictures:
        return _Pictures(self._dataset, self._episodes, count)


def iter_pictures(
    dataset: ReplayDataset, split: Split, *, batch_size: int, limit: int | None = None
) -> Iterator[GamePictureBatch]:
    """One pass over the pictures of a split, in order: by episode, then by step.

    Args:
        dataset, split, batch_size: as for `PictureLoader`; the last batch may be smaller.
        limit: at most this many pictures, spread evenly over the split; None for all.

    Raises:
        ValueError: an impossible argument, a dataset without large frames, or a split without episodes.
    """
    layout = require_large_frames(dataset)
    episodes = dataset.split(split)
    if not episodes:
        raise ValueError(f"split {split!r} of {dataset.root} has no episodes")
    pictures = np.array([(i, m) for i, ref in enumerate(episodes) for m in range(layout.count(ref.length))])
    for chosen in ordered_batches(pictures, batch_size=batch_size, limit=limit):
        buffer = _Pictures(dataset, episodes, len(chosen))
        buffer.read(chosen)
        yield {**buffer.batch(0, len(chosen)), "games": [episodes[index].game for index in chosen[:, 0]]}


def require_large_frames(dataset: ReplayDataset) -> LargeFrameLayout:
    """Which large frames a dataset holds; ValueError if none."""
    layout = dataset.metadata.large_frames
    if layout is None:
        raise ValueError(
            f"dataset {dataset.root} has no large frames: collect with collection.large_frame_every above 0"
        )
    return layout


class _Pictures:
    """Room for N decoded pictures: frames [N, H, W, C] and large frames [N, H, W, C]."""

    def __init__(self, dataset: ReplayDataset, episodes: Sequence[EpisodeRef], count: int) -> None:
        self._dataset, self._episodes = dataset, episodes
        size = require_large_frames(dataset).size
        self._frames = np.empty((count, *dataset.metadata.frame_shape), np.uint8)
        self._large = np.empty((count, size, size, 3), np.uint8)

    def read(self, examples: NDArray[np.int64]) -> None:
        """Fill in pictures [≤N, 2] (index of the episode, number in it), decoding each episode once."""
        for index in np.unique(examples[:, 0]):
            rows = np.flatnonzero(examples[:, 0] == index)
            frames_MHWC, large_MHWC = self._dataset.read_pictures(self._episodes[index])
            self._frames[rows] = frames_MHWC[examples[rows, 1]]
            self._large[rows] = large_MHWC[examples[rows, 1]]

    def batch(self, start: int, stop: int) -> PictureBatch:
        """A copy of some of the pictures."""
        return {
            "frames_BHWC": torch.from_numpy(self._frames[start:stop].copy()),
            "large_BHWC": torch.from_numpy(self._large[start:stop].copy()),
        }
