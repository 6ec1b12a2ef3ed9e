"""How a task hands its training batches to the loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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

    batch_size: Required[int]
    rank: Required[int]
    world_size: Required[int]
    pin_memory: bool
