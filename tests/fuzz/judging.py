"""What a loader may do with a bad input: refuse it in one line. Everything else is a failure."""

import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from zlib import crc32

import numpy as np
from numpy.random import Generator

Check = Callable[[Generator], None]
"""Makes an input and gives it to a loader; raises if the loader does anything but accept it rightly or refuse it."""

LONGEST_MESSAGE = 2000  # characters
LIMIT_S = 20.0  # for one input; most take milliseconds, but a test machine may be busy
MOST_MEMORY = 192 << 20  # bytes that one input may add


class TooLong(BaseException):
    """An input took longer than the limit. Not an Exception, so that no loader takes it for damage."""


def accepted(load: Callable[[], Any]) -> tuple[Any] | None:
    """What a loader returned, as a tuple of one; None if it refused in one clear line.

    Raises:
        AssertionError: the refusal is unclear. Any exception but a refusal passes through.
    """
    try:
        return (load(),)
    except (ValueError, OSError) as error:
        refusal = error
    message = str(refusal)
    assert type(refusal) is ValueError or isinstance(refusal, OSError), f"a bare {type(refusal).__name__}: {message}"
    assert message, "a refusal without a word"
    assert len(message.splitlines()) == 1, f"a refusal of several lines: {message!r}"
    assert len(message) <= LONGEST_MESSAGE, f"a refusal of {len(message)} characters: {message[:200]!r}"
    return None


def generator(name: str, seed: int) -> Generator:
    """The generator of one input of a target."""
    return np.random.default_rng([crc32(name.encode()), seed])


def judge(name: str, check: Check, seed: int, limit_s: float = LIMIT_S) -> str | None:
    """Tries one input; returns what went wrong, or None."""
    before = _peak_memory()
    try:
        with _limited(limit_s):
            check(generator(name, seed))
    except TooLong:
        return f"took longer than {limit_s:g} s: {_where(1)}"
    except Exception as error:  # whatever a loader lets through is what we look for
        return f"{type(error).__name__}: {str(error)[:600]} ({_where(2)})"
    grown = _peak_memory() - before
    return f"took {grown >> 20} MiB" if grown > MOST_MEMORY else None


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _where(frames: int) -> str:
    """The innermost frames of the current exception that are this repository's."""
    import sys

    stack = [frame for frame in traceback.extract_tb(sys.exc_info()[2]) if "site-packages" not in frame.filename]
    return ", ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in stack[-frames:])


@contextmanager
def _limited(limit_s: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
