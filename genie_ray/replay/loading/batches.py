"""Decoding: from examples, given as positions in episodes, to batches of tensors.

Axis letters: N examples of a block, B examples of a batch.
"""

from __future__ import annotations

import math
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from genie_ray.replay.dataset import EpisodeRef
from genie_ray.replay.loading.order import Integers, Supply
from genie_ray.replay.storage import open_parquet
from genie_ray.storage.paths import StoredPath

OPEN_FILES = 64

B = TypeVar("B")
Column = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, kw_only=True)
class Examples(Generic[B]):
    """The examples of some episodes, and how to read and batch them."""

    name: str  # in messages
    source: str  # in messages
    episodes: list[EpisodeRef]
    supply: Supply
    read: Callable[[EpisodeRef], tuple[Column, ...]]  # decodes an episode: columns with as many rows as `supply` says
    batch: Callable[..., B]  # from one tensor [B, span, ...] per column


class BatchReader(Generic[B]):
    """Decodes the episodes that contain the examples, and copies each example to its place in its batch."""

    def __init__(self, examples: Examples[B], *, pin_memory: bool = False) -> None:
        self._examples = examples
        self._allocate = partial(torch.empty, pin_memory=True) if pin_memory else RecycledMemory()

    def batches(self, chosen: Integers, batch_size: int) -> Iterator[B]:
        """Batches of examples [N, 2] (index of the episode, first row), in order.

        Every episode is decoded once, before the first batch, and in order, so that files with several stay open.
        """
        parts: list[tuple[torch.Tensor, ...]] = []
        span = self._examples.supply.span
        for episode in np.unique(chosen[:, 0]):
            columns = self._examples.read(self._examples.episodes[episode])
            if not parts:
                parts = [
                    tuple(self._room(column, min(batch_size, len(chosen) - start)) for column in columns)
                    for start in range(0, len(chosen), batch_size)
                ]
                rooms = [[tensor.numpy() for tensor in part] for part in parts]
            for example in np.flatnonzero(chosen[:, 0] == episode):
                first_row = chosen[example, 1]
                for room, column in zip(rooms[example // batch_size], columns, strict=True):
                    room[example % batch_size] = column[first_row : first_row + span]
            del columns  # so that the next episode is decoded into the same memory
        rooms.clear()
        while parts:
            yield self._examples.batch(*parts.pop(0))

    def _room(self, column: Column, examples: int) -> torch.Tensor:
        dtype = torch.from_numpy(column[:0]).dtype
        return self._allocate((examples, self._examples.supply.span, *column.shape[1:]), dtype=dtype)


class RecycledMemory:
    """Makes tensors from memory that earlier ones no longer use: allocating memory costs as much as filling it."""

    def __init__(self) -> None:
        self._free: defaultdict[int, list[Column]] = defaultdict(list)  # by size

    def __call__(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        size = math.prod(shape) * dtype.itemsize
        free = self._free[size]
        memory = free.pop() if free else np.empty(size, np.uint8)
        lent = memory[:]  # PyTorch keeps this array as long as any tensor uses the memory
        weakref.finalize(lent, free.append, memory).atexit = False
        return torch.from_numpy(lent).view(dtype).view(shape)


class OpenFiles:
    """Reads episodes and keeps recently read files open: opening one costs a third as much as reading an episode."""

    def __init__(self) -> None:
        self._open: Callable[[StoredPath], pq.ParquetFile] = lru_cache(OPEN_FILES)(open_parquet)

    def read(self, ref: EpisodeRef, columns: list[str]) -> pa.Table:
        """Some columns of an episode.

        Raises:
            ValueError: the file is damaged; the message names it.
        """
        try:
            return self._open(ref.path).read_row_group(ref.row_group, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"damaged file {ref.path}, row group {ref.row_group}: {error}") from error
