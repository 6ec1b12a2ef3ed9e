"""Shuffled batches of replay, endless and resumable: the base of the window and picture loaders.

Examples enter an epoch's order in visits to an episode (order.py). Each rank reads its own part of that order, in
blocks that are decoded and shuffled in memory: the shuffle buffer. The seed, the epoch, the rank and the world size
determine everything, so a position in an epoch suffices to resume exactly. A thread decodes while the model trains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Required, TypedDict, TypeVar

import numpy as np

from genie_ray.replay.loading.ahead import Ahead
from genie_ray.replay.loading.batches import BatchReader, Examples
from genie_ray.replay.loading.order import epoch_order, in_order

BATCHES_AHEAD = 2
ORDERED_BLOCK = 256  # examples decoded together in an ordered pass

B = TypeVar("B")


@dataclass(frozen=True, kw_only=True)
class Plan(Generic[B]):
    """Which batches a rank reads: a function of the position alone."""

    examples: Examples[B]
    batch_size: int
    seed: int
    rank: int
    world_size: int
    block_size: int  # examples, whole batches
    pin_memory: bool

    def batches(self, epoch: int, first_batch: int) -> Iterator[tuple[int, int, B]]:
        """Endless, from a position: the epoch, how many of its batches have been returned so far, and the batch."""
        reader = BatchReader(self.examples, pin_memory=self.pin_memory)
        while True:
            order = epoch_order(self.examples.supply, self.seed, epoch)
            share = len(order) // (self.batch_size * self.world_size) * self.batch_size
            given = first_batch * self.batch_size
            while given < share:
                start = given // self.block_size * self.block_size
                stop = min(start + self.block_size, share)
                rng = np.random.default_rng((self.seed, epoch, 1 + self.rank, start))
                shuffled = self.rank * share + rng.permutation(np.arange(start, stop))
                for batch in reader.batches(order.at(shuffled[given - start :]), self.batch_size):
                    given += self.batch_size
                    yield epoch, given // self.batch_size, batch
            epoch, first_batch = epoch + 1, 0


class LoaderOptions(TypedDict, total=False):
    """What every loader takes: see `ShuffledLoader`."""

    batch_size: Required[int]
    seed: Required[int]
    rank: int
    world_size: int
    shuffle_buffer: int
    pin_memory: bool


class ShuffledLoader(Generic[B]):
    """An endless iterator over shuffled batches of examples.

    Over all ranks, an epoch holds every example once, except for a last incomplete batch; every rank gets the same
    number of batches. An epoch of mixed datasets is as long; `epoch_order` says what it holds. The loader needs memory
    for `shuffle_buffer` examples, one decoded episode and a few batches.

    Args:
        examples: of the episodes of all datasets.
        batch_size: B, examples per batch of this rank.
        seed: of the order.
        rank: the part of the order to read.
        world_size: the number of parts.
        shuffle_buffer: examples shuffled in memory, rounded up to whole batches.
        pin_memory: whether batches lie in page-locked memory, from which a GPU copies while it computes.

    Raises:
        ValueError: an invalid argument, or too few examples for one batch on every rank.
    """

    def __init__(
        self,
        examples: Examples[B],
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        shuffle_buffer: int = 512,
        pin_memory: bool = False,
    ) -> None:
        require_positive(batch_size=batch_size, world_size=world_size, shuffle_buffer=shuffle_buffer)
        if not 0 <= rank < world_size:
            raise ValueError(f"rank is {rank}: must be from 0 to {world_size - 1}")
        fewest = examples.supply.fewest
        if fewest < batch_size * world_size:
            raise ValueError(
                f"{examples.source} has {fewest} {examples.name}: "
                f"fewer than one batch of {batch_size} for each of {world_size} ranks"
            )
        if not examples.supply.apportion(fewest).all():
            shares = ", ".join(f"{share:.2g}" for share in examples.supply.shares)
            raise ValueError(f"shares of {examples.source} are {shares}: too small for one of {fewest} {examples.name}")
        self._plan = Plan(
            examples=examples,
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            block_size=-(-shuffle_buffer // batch_size) * batch_size,
            pin_memory=pin_memory,
        )
        self._unweighted, self._weights = examples, list[float]()
        self._epoch, self._batch = 0, 0  # of the last batch returned
        self._ahead: Ahead[tuple[int, int, B]] | None = None

    def __iter__(self) -> Iterator[B]:
        return self

    def __next__(self) -> B:
        if self._ahead is None:
            self._ahead = Ahead(self._plan.batches(self._epoch, self._batch), BATCHES_AHEAD)
        try:
            self._epoch, self._batch, batch = next(self._ahead)
        except BaseException:
            self.close()
            raise
        return batch

    @property
    def episodes(self) -> int:
        """How many episodes have examples; they are numbered by dataset, then as in its split."""
        return len(self._unweighted.episodes)

    def weigh(self, weights: Sequence[float]) -> None:
        """Gives each episode a weight, by which its examples come more or less often, and begins the next epoch.

        Raises:
            ValueError: see `Supply.weighted`.
        """
        self.close()
        self._set_weights(weights)
        self._epoch, self._batch = self._epoch + 1, 0

    def _set_weights(self, weights: Sequence[float]) -> None:
        self._weights, examples = list(weights), self._unweighted
        if self._weights:
            examples = replace(examples, supply=examples.supply.weighted(self._weights))
        self._plan = replace(self._plan, examples=examples)

    def state_dict(self) -> dict[str, Any]:
        """The position: the epoch, how many of its examples all ranks have returned, and weights if any."""
        examples = self._batch * self._plan.batch_size * self._plan.world_size
        return {"epoch": self._epoch, "examples": examples, **({"weights": self._weights} if self._weights else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position.

        With the same arguments, the same batches follow as before. With another batch or world size, the epoch
        continues from that position rounded down to a whole batch: some of its examples then come twice and others not
        at all.
        """
        self.close()
        self._set_weights(state.get("weights", []))
        self._epoch = state["epoch"]
        self._batch = state["examples"] // (self._plan.batch_size * self._plan.world_size)

    def close(self) -> None:
        """Stop decoding ahead until the next batch is requested."""
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None


def ordered_batches(examples: Examples[B], *, batch_size: int, limit: int | None) -> Iterator[tuple[list[str], B]]:
    """One pass over examples in batches, each with the games of its examples.

    With a limit, at most that many: of each dataset its share, at least one, spread evenly over its examples.

    Raises:
        ValueError: an invalid batch size.
    """
    require_positive(batch_size=batch_size)
    supply = examples.supply
    order = in_order(supply)
    chosen = []
    for episodes, share in zip(supply.datasets, supply.apportion(limit or len(order)), strict=True):
        first, last = order.ends[episodes[0]] - order.count[episodes[0]], order.ends[episodes[-1]]
        there = last - first
        wanted = there if limit is None else min(there, max(1, share))
        chosen.append(first + np.arange(wanted) * there // wanted)
    positions = np.concatenate(chosen)
    reader, block_size = BatchReader(examples), -(-ORDERED_BLOCK // batch_size) * batch_size
    for start in range(0, len(positions), block_size):
        part = order.at(positions[start : start + block_size])
        games = [examples.episodes[index].game for index in part[:, 0]]
        for number, batch in enumerate(reader.batches(part, batch_size)):
            yield games[number * batch_size : (number + 1) * batch_size], batch


def require_positive(**values: int) -> None:
    """Raises ValueError if one of the named values is below 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} is {value}: must be at least 1")
