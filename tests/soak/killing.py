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


class Killer:
    """Kills, of the kinds that are there, one that was killed least.

    Args:
        nodes: whose raylets die, and are replaced.
        raylets: process ids of those that are up.
    """

    def __init__(self, nodes: Nodes, raylets: list[int], rng: random.Random) -> None:
        self._nodes, self.raylets, self._rng = nodes, raylets, rng
        self.kills: Counter[str] = Counter()

    def kill(self, driver: subprocess.Popen[str]) -> str | None:
        """Kills something; returns its kind, or None if what was found had ended by itself."""
        found = self.found(driver)
        least = min(self.kills[kind] for kind in found)
        kind = self._rng.choice([kind for kind in found if self.kills[kind] == least])
        with contextlib.suppress(psutil.NoSuchProcess):
            self._rng.choice(found[kind])()
            self.kills[kind] += 1
            return kind
        return None

    def found(self, driver: subprocess.Popen[str]) -> dict[str, list[Callable[[], object]]]:
        """How to kill each process, by kind."""
        ways: dict[str, list[Callable[[], object]]] = {DRIVER: [driver.kill], RAYLET: [self._kill_node]}
        for process in actors(self.raylets):
            with contextlib.suppress(psutil.NoSuchProcess):
                name = process.cmdline()[0]
                for kind, part in NAMES.items():
                    if part in name:
                        ways.setdefault(kind, []).append(process.kill)
                if "EnvRunner" in name:  # vectors have each emulator in a process of its own, forked from the worker
                    emulators = [child for child in process.children() if _command(child) == name]
                    ways.setdefault(EMULATOR, []).extend(child.kill for child in emulators)
        return {kind: of_kind for kind, of_kind in ways.items() if of_kind}

    def _kill_node(self) -> None:
        self._nodes.remove(self.raylets.pop(self._rng.randrange(len(self.raylets))))
        self.raylets.append(self._nodes.add())


def actors(raylets: list[int]) -> list[psutil.Process]:
    """Ray's processes on some nodes."""
    found = []
    for raylet in raylets:
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [child for child in psutil.Process(raylet).children() if _command(child).startswith("ray::")]
    return found


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.NoSuchProcess, IndexError):
        return str(process.cmdline()[0])
    return ""
