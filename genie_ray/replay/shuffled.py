"""Shuffled batches of replay, endless and resumable: what the loaders of windows and of pictures share.

An example is a place in an episode. Examples are dealt in small portions of an episode to blocks, which are shuffled in
memory: the shuffle buffer. Each rank reads its own part of that order. All of it follows from the seed, the epoch, the
rank and the world size, so a position in an epoch is enough to resume exactly.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from genie_ray.replay.dataset import EpisodeRef

EXAMPLES_PER_VISIT = 16  # of one episode that enter the order together: decoding it costs about as much as copying them

B_co = TypeVar("B_co", covariant=True)
B = TypeVar("B")


class Buffer(Protocol[B_co]):
    """Room for N decoded examples."""

    def read(self, examples: NDArray[np.int64]) -> None:
        """Fill in examples [≤N, 2] (index of the episode, place), decoding each episode once."""

    def batch(self, start: int, stop: int) -> B_co:
        """A copy of some of the examples."""


class ShuffledLoader(ABC, Generic[B]):
    """An endless iterator over shuffled batches of examples.

    Each epoch holds every example of the episodes once over all ranks, except for a last incomplete batch, and as many
    batches for every rank. Memory is `shuffle_buffer` examples and one decoded episode.

    Args:
        episodes: where the examples are.
        fewest: how many examples an epoch has, at least.
        supply: the same in words.
        batch_size: B, examples per batch of this rank.
        seed: of the order.
        rank: which part of the order is read here.
        world_size: how many parts there are.
        shuffle_buffer: examples shuffled in memory, rounded up to whole batches.

    Raises:
        ValueError: an impossible argument, or too few examples for one batch on every rank.
    """

    def __init__(
        self,
        episodes: list[EpisodeRef],
        *,
        fewest: int,
        supply: str,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        shuffle_buffer: int,
    ) -> None:
        require_positive(batch_size=batch_size, world_size=world_size, shuffle_buffer=shuffle_buffer)
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}: must be from 0 to {world_size - 1}")
        if fewest < batch_size * world_size:
            raise ValueError(f"{supply}: fewer than one batch of {batch_size} for each of {world_size} ranks")
        self._episodes = episodes
        self._batch_size, self._seed, self._rank, self._world_size = batch_size, seed, rank, world_size
        self._block_size = -(-shuffle_buffer // batch_size) * batch_size
        self._batches = self._epoch_batches(epoch=0, first_batch=0)
        self._epoch, self._batch = 0, 0

    def __iter__(self) -> Iterator[B]:
        return self

    def __next__(self) -> B:
        batch = next(self._batches, None)
        if batch is None:
            self._epoch, self._batch = self._epoch + 1, 0
            self._batches = self._epoch_batches(self._epoch, first_batch=0)
            batch = next(self._batches)
        self._batch += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        """The position: the epoch, and the examples of it that all ranks together have been given."""
        return {"epoch": self._epoch, "examples": self._batch * self._batch_size * self._world_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position.

        The batches that follow are those that would have followed there, if all arguments are the same. With another
        batch or world size the epoch goes on as far in, rounded down to a whole batch: some of its examples then come
        twice and others not at all.
        """
        self._epoch = state["epoch"]
        self._batch = state["examples"] // (self._batch_size * self._world_size)
        self._batches = self._epoch_batches(self._epoch, self._batch)

    @abstractmethod
    def _places(self, ref: EpisodeRef, rng: np.random.Generator) -> NDArray[np.int64]:
        """Where in an episode the examples of an epoch are."""

    @abstractmethod
    def _buffer(self, count: int) -> Buffer[B]:
        """Room for that many examples."""

    def _epoch_batches(self, epoch: int, first_batch: int) -> Iterator[B]:
        """This rank's batches of an epoch, from `first_batch` on."""
        order = self._rank_order(epoch)
        buffer = self._buffer(min(self._block_size, len(order)))
        block = -1
        for start in range(first_batch * self._batch_size, len(order), self._batch_size):
            if start // self._block_size != block:
                block = start // self._block_size
                buffer.read(order[block * self._block_size : (block + 1) * self._block_size])
            offset = start % self._block_size
            yield buffer.batch(offset, offset + self._batch_size)

    def _rank_order(self, epoch: int) -> NDArray[np.int64]:
        """The examples that this rank reads in an epoch [N, 2]: index of the episode, place; whole batches."""
        rng = np.random.default_rng((self._seed, epoch))
        visits = []
        for index, ref in enumerate(self._episodes):
            places = self._places(ref, rng)
            examples = np.stack([np.full_like(places, index), rng.permutation(places)], axis=1)
            visits += np.split(examples, range(EXAMPLES_PER_VISIT, len(examples), EXAMPLES_PER_VISIT))
        order = np.concatenate([visits[i] for i in rng.permutation(len(visits))])
        share = len(order) // (self._batch_size * self._world_size) * self._batch_size
        order = order[self._rank * share : (self._rank + 1) * share]
        blocks = np.split(order, range(self._block_size, share, self._block_size))
        return np.concatenate([rng.permutation(block) for block in blocks])


def ordered_batches(examples: NDArray[np.int64], *, batch_size: int, limit: int | None) -> Iterator[NDArray[np.int64]]:
    """One pass over examples [N, 2] in batches; with a limit over at most so many, spread evenly.

    Raises:
        ValueError: an impossible batch size.
    """
    require_positive(batch_size=batch_size)
    if limit is not None and limit < len(examples):
        examples = examples[np.arange(limit) * len(examples) // limit]
    for first in range(0, len(examples), batch_size):
        yield examples[first : first + batch_size]


def require_positive(**values: int) -> None:
    """Raises ValueError when one of the named values is below 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} is {value}: must be at least 1")
