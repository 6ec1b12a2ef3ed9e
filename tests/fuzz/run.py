"""Tries many damaged inputs on every loader and reports what was not refused in one clear line.

    python -m tests.fuzz.run --inputs 100000 --seed 0            all targets
    python -m tests.fuzz.run --minutes 30                        as many of them as there is time for
    python -m tests.fuzz.run --target labels --inputs 5000       one
    python -m tests.fuzz.run --target labels --only 1234         one input again, with its traceback

Each target runs in a process of its own, so that a crash or a hang of a library costs one input, not the run.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Generator
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from tests.fuzz.judging import LIMIT_S, generator, judge
from tests.fuzz.targets import TARGETS

MOST_ADDRESSES = 12 << 30  # bytes of address space that a process may add before its allocations fail
GRACE_S = 3 * LIMIT_S  # after which a process that answers to nothing is ended
EVERY_S = 10.0  # between lines of progress


def work(name: str, first: int, end: int, results: Connection) -> None:
    """Tries the inputs of one target; sends the seed of each before it, and what went wrong after it."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        check = TARGETS[name].make(Path(directory))
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MOST_ADDRESSES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        results.send((first, None))
        for seed in range(first, end):
            results.send((seed, None))
            if failure := judge(name, check, seed):
                results.send((seed, failure))
    results.send((end, None))


def failures(name: str, first: int, end: int, until: float) -> Generator[tuple[int, str], None, int]:
    """The seeds that failed, with what went wrong; returns how many were tried. Prints progress.

    Args:
        until: when to stop, of `time.monotonic`.
    """
    start, shown = time.monotonic(), time.monotonic()
    at = first
    while at < end and time.monotonic() < until:
        ours, theirs = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("fork").Process(target=work, args=(name, at, end, theirs))
        process.start()
        theirs.close()
        ours.recv()  # the target is made; that it cannot be is no input's fault, and ends the run
        try:
            while at < end:
                if time.monotonic() > until:
                    process.kill()
                    break
                if not ours.poll(GRACE_S):
                    process.kill()
                    yield at, "hangs in a library"
                    break
                at, failure = ours.recv()
                if failure:
                    yield at, failure
                if time.monotonic() - shown > EVERY_S:
                    shown = time.monotonic()
                    rate = (at - first) / (shown - start)
                    print(f"{name}: {at - first:,} of {end - first:,}, {rate:.0f}/s", flush=True)
        except EOFError:
            process.join()
            yield at, f"ends the process: {process.exitcode}"
        process.join()
        at += at < end and time.monotonic() < until  # what ended the process is not tried again
    return at - first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="over all targets, or of the one target")
    parser.add_argument("--minutes", type=float, default=math.inf, help="in which each target has its share")
    parser.add_argument("--seed", type=int, default=0, help="the first input's of each target")
    parser.add_argument("--target", choices=TARGETS, help="default: all")
    parser.add_argument("--only", type=int, metavar="SEED", help="one input of the target")
    arguments = parser.parse_args()
    if arguments.only is not None:
        with tempfile.TemporaryDirectory() as directory:
            check = TARGETS[arguments.target].make(Path(directory))
            check(generator(arguments.target, arguments.only))
            print(judge(arguments.target, check, arguments.only) or "refused or accepted as it should be")
        return
    failed: list[str] = []
    tried, begun, shares = 0, time.monotonic(), 0
    for name in [arguments.target] if arguments.target else TARGETS:
        if TARGETS[name].needs and not TARGETS[name].needs.exists():
            print(f"{name}: left out, there is no {TARGETS[name].needs}")
            continue
        inputs = arguments.inputs if arguments.target else arguments.inputs * TARGETS[name].share // 100
        start, before = time.monotonic(), len(failed)
        shares += 100 if arguments.target else TARGETS[name].share
        found = failures(name, arguments.seed, arguments.seed + inputs, begun + 0.6 * shares * arguments.minutes)
        while True:
            try:
                seed, failure = next(found)
            except StopIteration as end:
                count = end.value
                break
            failed.append(f"--target {name} --only {seed}: {failure}")
            print(failed[-1], flush=True)
        tried += count
        seconds = time.monotonic() - start
        print(f"{name}: {count:,} of {inputs:,} inputs, {len(failed) - before} failures, {seconds:.0f} s", flush=True)
    print(f"{tried:,} inputs, {len(failed)} failures")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
