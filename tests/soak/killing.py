"""Finds the processes of every kind that a cluster of nodes.py runs, and kills one of them at a time."""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections import Counter
from collections.abc import Callable

import psutil

from tests.cluster.running import Nodes

NAMES = {
    "rollout worker, exploring": "EnvRunner",
    "rollout worker, collecting": "RolloutWorker",
    "replica": "ServeReplica",
    "train worker": "RayTrainWorker",
}
"""What the command lines of Ray's actors hold."""
EMULATOR, RAYLET, DRIVER = "emulator", "raylet", "driver"
KINDS = (*NAMES, EMULATOR, RAYLET, DRIVER)
OF_STAGE = {
    "explore": ("rollout worker, exploring", "replica", EMULATOR, RAYLET, DRIVER),
    "collect": ("rollout worker, collecting", RAYLET, DRIVER),
    "train": ("train worker", RAYLET, DRIVER),
}
"""The kinds that a stage has. A collecting worker's emulator is in its own process."""
PATIENCE_S = 120.0  # for one of the kind that was killed least


class Killer:
    """Kills, of a stage's kinds, one that was killed least.

    Most of a stage passes in starting Ray's workers anew, and drivers and nodes are there all the time. So what is to
    be killed is waited for, or all kills would be of these two.

    Args:
        nodes: whose raylets die, and are replaced.
        raylets: process ids of those that are up.
    """

    def __init__(self, nodes: Nodes, raylets: list[int], rng: random.Random) -> None:
        self._nodes, self.raylets, self._rng = nodes, raylets, rng
        self.kills: Counter[str] = Counter()

    def kill(self, stage: str, driver: subprocess.Popen[str], waited_s: float) -> str | None:
        """Kills something; returns its kind, or None if it is not there yet or has ended by itself.

        Args:
            waited_s: how long a kill has been due; after `PATIENCE_S`, any kind of the stage will do.
        """
        found = {kind: ways for kind, ways in self.found(driver).items() if kind in OF_STAGE[stage]}
        candidates = OF_STAGE[stage] if waited_s < PATIENCE_S else tuple(found)
        least = min(self.kills[kind] for kind in candidates)
        wanted = [kind for kind in candidates if self.kills[kind] == least and kind in found]
        if not wanted:
            return None
        kind = self._rng.choice(wanted)
        with contextlib.suppress(psutil.NoSuchProcess):
            self._rng.choice(found[kind])()
            self.kills[kind] += 1
            return kind
        return None

    def found(self, driver: subprocess.Popen[str]) -> dict[str, list[Callable[[], object]]]:
        """How to kill each process, by kind."""
        ways: dict[str, list[Callable[[], object]]] = {DRIVER: [driver.kill], RAYLET: [self._kill_node]}
        for kind, running in processes(self.raylets).items():
            ways[kind] = [process.kill for process in running]
        return ways

    def _kill_node(self) -> None:
        self._nodes.remove(self.raylets.pop(self._rng.randrange(len(self.raylets))))
        self.raylets.append(self._nodes.add())


def processes(raylets: list[int]) -> dict[str, list[psutil.Process]]:
    """Ray's workers on some nodes, and their emulators, by kind."""
    found: dict[str, list[psutil.Process]] = {}
    for process in actors(raylets):
        name = command_of(process)
        for kind, part in NAMES.items():
            if part in name:
                found.setdefault(kind, []).append(process)
        if "EnvRunner" in name:  # each emulator has a process, forked when its worker had another name
            with contextlib.suppress(psutil.NoSuchProcess):
                emulators = [child for child in process.children() if command_of(child).startswith("ray::")]
                found.setdefault(EMULATOR, []).extend(emulators)
    return {kind: of_kind for kind, of_kind in found.items() if of_kind}


def actors(raylets: list[int]) -> list[psutil.Process]:
    """Ray's processes on some nodes."""
    found = []
    for raylet in raylets:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [child for child in psutil.Process(raylet).children() if command_of(child).startswith("ray::")]
    return found


def command_of(process: psutil.Process) -> str:
    """The first word of its command line, which is what Ray calls an actor; empty once it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess, IndexError):
        return str(process.cmdline()[0])
    return ""
