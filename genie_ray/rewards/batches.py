"""Requests inside a replica, and the batches formed from their windows."""

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
    """A caller's fragments, judged batch by batch."""

    judge: Judge
    lengths: list[int]  # actions of each fragment
    waiting: deque[Windows]
    maps: bool
    remember: bool
    done: asyncio.Future[RewardAnswer]
    arrived: float = field(default_factory=time.perf_counter)
    judged: list[Judgement] = field(default_factory=list)
    version: str | None = None  # the judge's, at its latest batch

    def take(self, limit: int) -> list[Windows]:
        """Removes and returns up to `limit` waiting windows, in order."""
        taken: list[Windows] = []
        while limit and self.waiting:
            first = self.waiting.popleft()
            if len(first) > limit:
                self.waiting.appendleft(first[limit:])
            taken.append(first[:limit])
            limit -= len(taken[-1])
        return taken

    def answer(self) -> RewardAnswer:
        """All judgements, split back into fragments; NaN where there is no window."""
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


def next_batch(requests: Sequence[Request], size: int, *, whole: bool) -> list[tuple[Request, Windows]]:
    """Up to `size` windows for the first request's judge, in order of arrival, so an episode is judged in its order.

    Windows that may be remembered and windows that may not are never in one batch.

    Args:
        whole: whether a request other than the first is taken only if all of it fits in.
    """
    batch: list[tuple[Request, Windows]] = []
    for request in requests:
        room = size - sum(len(windows) for _, windows in batch)
        if request.judge is not requests[0].judge or request.remember != requests[0].remember:
            break
        if whole and batch and sum(map(len, request.waiting)) > room:
            break
        batch += [(request, windows) for windows in request.take(room)]
    return batch


def digest(
    frames: Iterable[np.ndarray], actions: Iterable[np.ndarray], episodes: Sequence[str] | None, *flags: bool
) -> bytes:
    """A hash that identifies a question."""
    hasher = hashlib.blake2b(repr((episodes, flags)).encode(), digest_size=16)
    for array in (*frames, *actions):
        hasher.update(f"{array.dtype} {array.shape}".encode())
        hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return hasher.digest()
