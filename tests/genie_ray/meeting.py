"""What stages of tests do; other processes import it."""

import os
import signal
import time
from pathlib import Path

from genie_ray.base.progress import console

PATIENCE_S = 60.0


def meet(own: Path, other: Path) -> None:
    """Ends when the other one has begun, too."""
    own.touch()
    console.print(f"[waiting] for {other.name}", markup=False)
    end = time.monotonic() + PATIENCE_S
    while not other.exists():
        assert time.monotonic() < end, "nobody came"
        time.sleep(0.05)


def wait_long(begun: Path, stopped: Path) -> None:
    """Waits until it is interrupted; then it tidies up."""
    begun.touch()
    try:
        for _ in range(int(PATIENCE_S)):
            time.sleep(1)
    finally:
        stopped.touch()


def refuse(begun: Path) -> None:
    """Raises when the other one has begun."""
    while not begun.exists():
        time.sleep(0.05)
    raise OSError(28, "No space left on device")


def need(*paths: Path, made: Path) -> None:
    assert all(path.exists() for path in paths)
    made.touch()


def die(begun: Path) -> None:
    """Kills its own process when the other one has begun."""
    while not begun.exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
