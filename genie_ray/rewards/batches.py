"""Requests on their way through a replica, and the batches that are made of their windows."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genie_ray.rewards.judges import Judge, Judgement
from genie_ray.rewards.windows import Windows
from policies.rewards import WINDOW_ACTIONS, RewardAnswer


@dataclass(kw_only=True, eq=False)
class Request:
    """A caller's fragments on their way through the batches."""

    judge: Judge
    lengths: list[int]  # actions of each fragment
    waiting: deque[Windows]
    episodes: frozenset[str]  # whose windows must be judged in their order
    maps: bool
    remember: bool
    done: asyncio.Future[RewardAnswer]
    arrived: float = field(default_factory=time.perf_counter)
    judged: list[Judgement] = field(default_factory=list)
    version: str | None = None  # of the judge when it judged last

    def take(self, limit: int) -> list[Windows]:
        """Up to that many of the windows that wait, in their order."""
        taken: list[Windows] = []
        while limit and self.waiting:
            first = self.waiting.popleft()
            if len(first) > limit:
                self.waiting.appendleft(first[limit:])
            taken.append(first[:limit])
            limit -= len(taken[-1])
        return taken

    def answer(self) -> RewardAnswer:
        """All judgements, cut into the fragments again; NaN where there was no window."""
        names = self.judged[0].statistics if self.judged else ()
        with_maps = self.maps and all(judged.maps_Mhw is not None for judged in self.judged)
        return RewardAnswer(
            rewards=self._spread([judged.rewards_M for judged in self.judged]),
            version=self.version or self.judge.version,
            statistics={name: self._spread([judged.statistics[name] for judged in self.judged]) for name in names},
            maps=self._spread([judged.maps_Mhw for judged in self.judged]) if with_maps else None,
        )

    def _spread(self, parts: Sequence[Any]) -> list[np.ndarray]:
        values = np.concatenate(parts) if parts else np.empty(0, np.float32)
        spread = [np.full((length, *values.shape[1:]), np.nan, np.float32) for length in self.lengths]
        start = 0
        for array in spread:
            windows = max(len(array) - WINDOW_ACTIONS + 1, 0)
            array[len(array) - windows :] = values[start : start + windows]
            start += windows
        assert start == len(values)
        return spread


def next_batch(requests: Sequence[Request], size: int) -> list[tuple[Request, Windows]]:
    """Up to `size` windows for the judge of the first request, an equal share of each: nobody waits for a long one."""
    batch: list[tuple[Request, Windows]] = []
    room = size
    while room and (served := _served_next(requests)):
        share = max(1, room // len(served))
        for request in served:
            taken = request.take(min(share, room))
            batch += [(request, windows) for windows in taken]
            room -= sum(map(len, taken))
    return batch


def _served_next(requests: Sequence[Request]) -> list[Request]:
    """Those with windows left, unless an earlier one holds windows of the same episode or waits for another judge.

    What may be remembered and what may not is judged apart.
    """
    served: list[Request] = []
    episodes: set[str] = set()
    for request in requests:
        if request.judge is not requests[0].judge or request.remember != requests[0].remember:
            break
        if request.waiting:
            if episodes.isdisjoint(request.episodes):
                served.append(request)
            episodes |= request.episodes
    return served


def digest(
    frames: Iterable[np.ndarray], actions: Iterable[np.ndarray], episodes: Sequence[str] | None, *flags: bool
) -> bytes:
    """Tells questions apart."""
    hasher = hashlib.blake2b(repr((episodes, flags)).encode(), digest_size=16)
    for array in (*frames, *actions):
        hasher.update(f"{array.dtype} {array.shape}".encode())
        hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return hasher.digest()
