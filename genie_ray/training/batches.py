"""How a task hands its training batches to the loop, in pieces that any number of workers can share.

A batch has as many pieces as there are train workers at most, times the micro-steps of each. A piece has its own
loader and random numbers, whichever worker computes it. So the workers may become fewer or more while a training runs,
and one worker gives the weights that eight give, up to the order of sums (and but for "ema" codebooks, whose running
means each worker has of its own pieces).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Required, TypedDict


class Loader(Protocol):
    """An endless source of batches whose position can be saved."""

    def __iter__(self) -> Iterator[Mapping[str, Any]]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def weigh(self, weights: Sequence[float]) -> None: ...

    @property
    def episodes(self) -> int: ...

    def close(self) -> None: ...


class BatchOptions(TypedDict, total=False):
    """How a train worker reads its batches; the rest is the job's. See `ShuffledLoader`."""

    batch_size: Required[int]  # of a piece
    rank: Required[int]  # the piece
    world_size: Required[int]  # pieces
    pin_memory: bool


class Pieces:
    """The pieces of a batch that fall to one worker.

    Args:
        make: makes the loader of a piece, given its number.
        count: pieces of a batch.
        rank: the worker.
        world_size: how many workers there are now, at most `count`.
    """

    def __init__(self, make: Callable[[int], Loader], *, count: int, rank: int, world_size: int) -> None:
        self.numbers = range(rank, count, world_size)
        self._loaders = [make(number) for number in self.numbers]
        self._batches: list[Iterator[Mapping[str, Any]]] = []
        self._waited = 0.0

    def __iter__(self) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """The next batch of each piece, with its number."""
        self._batches = self._batches or [iter(loader) for loader in self._loaders]
        for number, batches in zip(self.numbers, self._batches, strict=True):
            asked = time.perf_counter()
            batch = next(batches)
            self._waited += time.perf_counter() - asked
            yield number, batch

    def take_wait(self) -> float:
        """Seconds that batches were waited for since this was last asked."""
        waited, self._waited = self._waited, 0.0
        return waited

    @property
    def episodes(self) -> int:
        """See `ShuffledLoader.episodes`."""
        return self._loaders[0].episodes

    def weigh(self, weights: Sequence[float]) -> None:
        """See `ShuffledLoader.weigh`."""
        for loader in self._loaders:
            loader.weigh(weights)

    def state_dict(self) -> dict[str, Any]:
        """The position, which is the same for all pieces."""
        return self._loaders[0].state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position."""
        for loader in self._loaders:
            loader.load_state_dict(state)

    def close(self) -> None:
        """Stop decoding ahead."""
        for loader in self._loaders:
            loader.close()
