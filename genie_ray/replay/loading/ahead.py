"""Taking items from an iterator before they are asked for, in a thread."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """An endless iterator's items, `depth` of them made ahead in one thread.

    What it raises is raised by `next`, in its turn. The thread waits while `depth` items are ready; it ends with
    `close`, with the last reference to this object, or with the interpreter.
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
        """Wait for the item in the making and end the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)
