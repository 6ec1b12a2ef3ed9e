"""Sweeps on one cluster take turns: whoever takes the least of it starts the next trial.

Ray gives a trial's own processes room, or has them wait, but its reward service and its trainings come later: two
sweeps that each count all CPUs would fill them with trials of which none can get on. So each sweep keeps a named actor
that says what its trials take, services and trainings included. The actor dies with its sweep.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.tune.search import Searcher
from ray.util import list_named_actors

from genie_ray.base.progress import console

NAME = "genie-ray-sweep:"
POLL_S, TELL_EVERY_S = 1.0, 30.0


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a sweep takes of the cluster."""

    name: str  # the lower goes first, if two take as much
    needs: Mapping[str, float]  # of one trial, by resource
    running: int = 0  # trials
    left: int = 0  # trials that have not started

    def taken(self, resource: str) -> float:
        """By its running trials."""
        return self.running * self.needs.get(resource, 0)

    def share(self, there: Mapping[str, float]) -> float:
        """Its part of the resource of which it takes the largest part."""
        return max((self.taken(name) / there[name] for name in self.needs if there.get(name)), default=0.0)


def may_start(own: Claim, others: Sequence[Claim], there: Mapping[str, float]) -> bool:
    """Whether a sweep may start a trial: it is its turn, and there is room.

    It is the turn of the sweep that takes the smallest share, of those that have trials left, even if its trial needs
    more room than there is yet: it would wait for ever if smaller ones went first.
    """
    waiting = [claim for claim in (own, *others) if claim.left]
    first = min(waiting, key=lambda claim: (claim.share(there), claim.name), default=None)
    everyone = (own, *others)
    return first is own and all(
        sum(claim.taken(name) for claim in everyone) + amount <= there.get(name, 0) + 1e-6
        for name, amount in own.needs.items()
    )


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)
class Board:
    """Where a sweep's claim can be read by others. If its process or node dies, it comes back without one."""

    def __init__(self, claim: Claim) -> None:
        self._claim = claim

    def put(self, claim: Claim) -> None:
        """Replaces the claim."""
        self._claim = claim

    def read(self) -> Claim:
        """The claim."""
        return self._claim


class Turns:
    """One sweep's dealings with the others."""

    def __init__(self, claim: Claim) -> None:
        self._claim, self._asked = claim, time.monotonic()
        nothing = replace(claim, left=0)
        self._board = Board.options(name=NAME + claim.name).remote(nothing)  # type: ignore[attr-defined]
        self._show()
        time.sleep(2 * POLL_S)  # a sweep that did not see this one yet has started what it was about to

    def begin(self) -> bool:
        """Starts a trial if it may."""
        self._show()  # again, as the board may have died
        others = self._others()
        if not may_start(self._claim, others, ray.cluster_resources()):
            self._tell(others)
            return False
        self._put(running=self._claim.running + 1, left=self._claim.left - 1)
        return True

    def end(self) -> None:
        """A trial is over."""
        self._put(running=self._claim.running - 1, left=self._claim.left)

    def close(self) -> None:
        """The sweep is over."""
        ray.kill(self._board)

    def _put(self, *, running: int, left: int) -> None:
        self._claim, self._asked = replace(self._claim, running=running, left=left), time.monotonic()
        self._show()

    def _show(self) -> None:
        ray.get(self._board.put.remote(self._claim))

    def _others(self) -> list[Claim]:
        claims = []
        for actor in list_named_actors(all_namespaces=True):
            if not actor["name"].startswith(NAME) or actor["name"] == NAME + self._claim.name:
                continue
            try:
                board = ray.get_actor(actor["name"], actor["namespace"])
                claims.append(ray.get(board.read.remote()))
            except (ValueError, RayError):  # it has just ended
                continue
        return claims

    def _tell(self, others: Sequence[Claim]) -> None:
        if self._claim.running or time.monotonic() - self._asked < TELL_EVERY_S:
            return
        self._asked = time.monotonic()
        taken = sum(claim.taken("CPU") for claim in others)
        console.print(
            f"{len(others)} other sweeps take {taken:g} of the cluster's {ray.cluster_resources().get('CPU', 0):g} "
            "CPUs: waiting for this one's turn",
            soft_wrap=True,
        )


class InTurn(Searcher):
    """Gives Ray Tune the numbers of the trials, each when it may start."""

    def __init__(self, numbers: Sequence[int], turns: Turns) -> None:
        super().__init__(metric="epoch", mode="max")
        self._numbers, self._turns, self._started, self._polled = list(numbers), turns, set[str](), 0.0

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's number; nothing as long as it has to wait."""
        if not self._numbers:
            return Searcher.FINISHED
        if time.monotonic() - self._polled < POLL_S:
            return None
        self._polled = time.monotonic()
        if not self._turns.begin():
            return None
        self._polled = 0.0
        self._started.add(trial_id)
        return {"trial": self._numbers.pop(0)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Gives back what the trial took."""
        if trial_id in self._started:
            self._started.remove(trial_id)
            self._turns.end()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: no sweep is restored from Tune's files."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""
