"""Prefetching items of an iterator in a thread."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """An endless iterator's items, with `depth` of them prefetched in one thread.

    What the iterator raises is raised by `next`, in its turn. The thread waits while `depth` items are ready. It ends
    on `close`, with the last reference to this object, or with the interpreter.
    """

    def __init__(self, items: Iterator[T], depth: int) -> None:
        self._items = items
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead")
        self._pending: deque[Future[T]] = deque(self._thread.submit(next, items) for _ in range(depth))

    def __next__(self) -> T:
        item = self._pending.popleft().result()
        self._pending.append(self._thread.submit(next, self._items))
        return item

    def close(self) -> None:
        """Wait for the item in progress and end the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)
