"""The processes that a test has started, Ray's among them."""

import contextlib

import psutil


def children_named(part: str) -> list[psutil.Process]:
    """Processes under this one whose command line has a part, e.g. "RayTrainWorker"."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if part in " ".join(process.cmdline()):
                found.append(process)
    return found
