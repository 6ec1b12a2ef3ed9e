"""One replica of the service: a judge, and batches of whatever windows wait, whoever sent them.

There is no waiting for a batch to fill: while one is judged, the next one gathers. A request is judged by one judge
throughout, so by one version of the weights, and answered once: asked again under the same id it gets the same answer
(a judge that learns or counts must not see it twice).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.serve.metrics import Counter, Gauge, Histogram

from genie_ray.rewards import config as configs
from genie_ray.rewards.judges import Judge, Judgement
from genie_ray.rewards.state import build_judge, save_state
from genie_ray.rewards.windows import Windows, check_fragments, join, unfold
from policies.rewards import WINDOW_ACTIONS, RewardAnswer
from world_model.checkpoint import read_config
from world_model.genie import GenieReduxG

REMEMBERED_ANSWERS = 256  # of the latest requests
SAVE_EVERY_S = 30.0
RECENT = 1_000  # requests and batches that `stats` is about
LATENCY_BOUNDARIES = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]


@dataclass(kw_only=True)
class Request:
    """A caller's fragments on their way through the batches."""

    judge: Judge
    lengths: list[int]  # actions of each fragment
    waiting: deque[Windows]
    maps: bool
    done: asyncio.Future[RewardAnswer]
    arrived: float = field(default_factory=time.perf_counter)
    judged: list[Judgement] = field(default_factory=list)
    version: str | None = None  # of the judge when it judged last

    def take(self, limit: int) -> Windows | None:
        """Up to that many of the windows that wait; None if none does or none may."""
        if not (limit and self.waiting):
            return None
        first = self.waiting.popleft()
        if len(first) > limit:
            self.waiting.appendleft(first[limit:])
        return first[:limit]

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


class RewardModel:
    """The deployment's class."""

    def __init__(self) -> None:
        # Judging, learning, loading and saving take turns in one thread; the event loop takes requests meanwhile.
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._queue: deque[Request] = deque()
        self._answers: OrderedDict[str, asyncio.Future[RewardAnswer]] = OrderedDict()
        self._worker: asyncio.Task[None] | None = None
        self._judge: Judge | None = None
        self._saved = self._started = time.perf_counter()
        self._latencies: deque[float] = deque(maxlen=RECENT)
        self._batches: deque[tuple[int, float]] = deque(maxlen=RECENT)  # windows, seconds
        self._counts = {"requests": 0, "windows": 0, "batches": 0}
        self._metrics = {
            "windows": Counter("genie_ray_reward_windows", description="Windows judged."),
            "batch": Histogram(
                "genie_ray_reward_batch_windows",
                description="Windows per forward pass.",
                boundaries=[2.0**power for power in range(11)],
            ),
            "latency": Histogram(
                "genie_ray_reward_latency_seconds",
                description="From a request's arrival at the replica to its answer.",
                boundaries=LATENCY_BOUNDARIES,
            ),
            "rate": Gauge("genie_ray_reward_windows_per_second", description="Of the latest batch."),
        }

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Called by Serve at the start and after each change; requests that have arrived keep their judge."""
        config = configs.from_dict(user_config["config"])
        state = user_config["state"] and Path(user_config["state"])
        loop = asyncio.get_running_loop()

        def build() -> Judge:
            torch.set_num_threads(config.threads)
            if self._judge is not None and self._config.stateful:
                save_state(self._judge, self._state)
            device = torch.device("cuda" if user_config["gpus"] else "cpu")
            judge = build_judge(config, user_config["checkpoint"], user_config["version"], state, device)
            if config.stateful:
                save_state(judge, state)
            return judge

        judge = await loop.run_in_executor(self._thread, build)
        self._judge, self._config, self._state = judge, config, state
        self._sizes = read_config(GenieReduxG, user_config["checkpoint"])

    async def rewards(
        self,
        request_id: str,
        frames: list[np.ndarray],
        actions: list[np.ndarray],
        episodes: list[str] | None = None,
        maps: bool = False,
    ) -> RewardAnswer:
        """The fragments' rewards; see `policies.rewards.RewardClient.submit`.

        Raises:
            ValueError: fragments that cannot be judged.
        """
        known = self._answers.get(request_id)
        if known is None:
            known = self._answers[request_id] = self._enqueue(frames, actions, episodes, maps)
            if len(self._answers) > REMEMBERED_ANSWERS:
                self._answers.popitem(last=False)
        return await asyncio.shield(known)

    def _enqueue(
        self, frames: list[np.ndarray], actions: list[np.ndarray], episodes: list[str] | None, maps: bool
    ) -> asyncio.Future[RewardAnswer]:
        sizes = self._sizes
        check_fragments(
            frames,
            actions,
            episodes,
            frame_size=sizes.tokenizer.frame_size,
            num_actions=sizes.dynamics.num_actions,
        )
        if self._config.episodic_novelty and episodes is None:
            raise ValueError("no episodes were named; allowed with episodic_novelty: one per fragment")
        names = episodes if self._config.episodic_novelty and episodes is not None else [None] * len(frames)
        parts = (unfold(*fragment) for fragment in zip(frames, actions, names, strict=True))
        assert self._judge is not None
        request = Request(
            judge=self._judge,
            lengths=[len(taken) for taken in actions],
            waiting=deque(part for part in parts if len(part)),
            maps=maps,
            done=asyncio.get_running_loop().create_future(),
        )
        self._queue.append(request)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return request.done

    async def _work(self) -> None:
        """Judges until nobody waits."""
        loop = asyncio.get_running_loop()
        while self._queue:
            judge = self._queue[0].judge
            batch = self._next_batch()
            try:
                if batch:
                    judged = await loop.run_in_executor(self._thread, self._judge_batch, judge, batch)
                    for (request, _), judgement in zip(batch, judged, strict=True):
                        request.judged.append(judgement)
            except Exception as error:
                for request, _ in batch:
                    if not request.done.done():
                        request.done.set_exception(error)
            self._finish()
            if batch and self._config.remembers:
                await loop.run_in_executor(self._thread, self._learn, judge)

    def _next_batch(self) -> list[tuple[Request, Windows]]:
        """Windows in order of arrival, up to the batch size, all for one judge."""
        batch: list[tuple[Request, Windows]] = []
        room = self._config.batch_size
        for request in self._queue:
            if request.judge is not self._queue[0].judge:
                break
            while (windows := request.take(room)) is not None:
                batch.append((request, windows))
                room -= len(windows)
            if not room:
                break
        return batch

    def _judge_batch(self, judge: Judge, batch: list[tuple[Request, Windows]]) -> list[Judgement]:
        started = time.perf_counter()
        windows = join([part for _, part in batch])
        for request, _ in batch:
            request.version = judge.version
        judged = judge.judge(windows)
        if not np.isfinite(judged.rewards_M).all():
            raise ArithmeticError(f"judge {judge.version} gave rewards that are not finite")
        seconds = time.perf_counter() - started
        self._counts["batches"] += 1
        self._counts["windows"] += len(windows)
        self._batches.append((len(windows), seconds))
        self._metrics["windows"].inc(len(windows))
        self._metrics["batch"].observe(len(windows))
        self._metrics["rate"].set(len(windows) / seconds)
        cuts = np.cumsum([0, *(len(part) for _, part in batch)])
        return [_part(judged, slice(start, stop)) for start, stop in itertools.pairwise(cuts)]

    def _finish(self) -> None:
        """Answers the requests that are complete or have failed, from the front of the queue."""
        while self._queue and (self._queue[0].done.done() or not self._queue[0].waiting):
            request = self._queue.popleft()
            if not request.done.done():
                request.done.set_result(request.answer())
            elapsed = time.perf_counter() - request.arrived
            self._counts["requests"] += 1
            self._latencies.append(elapsed)
            self._metrics["latency"].observe(elapsed)

    def _learn(self, judge: Judge) -> None:
        judge.learn()
        if judge is self._judge and time.perf_counter() - self._saved > SAVE_EVERY_S:
            save_state(judge, self._state)
            self._saved = time.perf_counter()

    async def save(self) -> None:
        """Writes what the judge remembers."""
        if self._judge is not None and self._config.stateful:
            await asyncio.get_running_loop().run_in_executor(self._thread, save_state, self._judge, self._state)

    async def describe(self) -> dict[str, Any]:
        """What is served."""
        assert self._judge is not None
        return {
            "kind": self._config.kind,
            "episodic_novelty": self._config.episodic_novelty,
            "version": self._judge.version,
            "frame_size": self._sizes.tokenizer.frame_size,
            "num_actions": self._sizes.dynamics.num_actions,
        }

    async def stats(self) -> dict[str, Any]:
        """Of this replica: how much was judged, and how fast of late (latencies from arrival to answer)."""
        windows, seconds = (sum(column) for column in zip(*self._batches, strict=True)) if self._batches else (0, 0.0)
        p50, p95 = np.quantile(self._latencies, [0.5, 0.95]).tolist() if self._latencies else (None, None)
        return {
            **self._counts,
            "waiting_requests": len(self._queue),
            "windows_per_batch": windows / len(self._batches) if self._batches else None,
            "windows_per_busy_second": windows / seconds if seconds else None,
            "latency_p50_s": p50,
            "latency_p95_s": p95,
            "uptime_s": time.perf_counter() - self._started,
            "pid": os.getpid(),
        }


def _part(judged: Judgement, part: slice) -> Judgement:
    return Judgement(
        rewards_M=judged.rewards_M[part],
        statistics={name: values[part] for name, values in judged.statistics.items()},
        maps_Mhw=None if judged.maps_Mhw is None else judged.maps_Mhw[part],
    )
