"""One replica of the service: a judge, and batches of all waiting windows, whoever sent them.

No batch waits to fill up: while one is judged, windows for the next one arrive. A whole request is judged by one judge,
so by one version of the weights, and only once: a retry under the same id gets the same answer (a judge that learns or
counts must not see it twice). A judge learns only while no request is judged in part. An error in a batch goes to the
requests in that batch only.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import os
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import torch
from ray.serve.metrics import Counter, Gauge, Histogram

from genie_ray.base.settings import build
from genie_ray.rewards.batches import Request, digest, next_batch
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.judges import Judge, Judgement
from genie_ray.rewards.state import build_judge, describe_checkpoint, save_state
from genie_ray.rewards.windows import Windows, check_fragments, join, unfold
from genie_ray.storage.paths import resolve_in
from policies.memory import keep_freed_memory
from policies.rewards import RewardAnswer

T = TypeVar("T")

REMEMBERED_ANSWERS = 256  # of the latest requests
SAVE_EVERY_S = 30.0
RECENT = 1_000  # requests and batches that `stats` covers
LATENCY_BOUNDARIES = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]

logger = logging.getLogger(__name__)


class RewardModel:
    """The class that Serve deploys.

    Args:
        stores: the file systems of object stores that its settings name, by scheme.
    """

    def __init__(self, stores: Mapping[str, Any] | None = None) -> None:
        self._stores = stores or {}
        # Judging, learning, loading and saving take turns in one thread; meanwhile the event loop accepts requests.
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._queue: deque[Request] = deque()
        self._answers: OrderedDict[str, tuple[bytes, asyncio.Future[RewardAnswer]]] = OrderedDict()
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
        """Called by Serve at the start and after each change; requests already received keep their judge."""

        def replace_judge() -> Judge:
            if self._judge is not None:
                self._try_to_save(self._judge)
            judge = self._build(user_config)
            if config.stateful:
                save_state(judge, state)
            return judge

        config = build(RewardConfig, user_config["config"])
        state = user_config["state"] and resolve_in(user_config["state"], self._stores)
        served = describe_checkpoint(resolve_in(user_config["checkpoint"], self._stores))
        judge = await self._in_thread(replace_judge)
        self._judge, self._config, self._state, self._served = judge, config, state, served

    def _build(self, user_config: dict[str, Any]) -> Judge:
        config = build(RewardConfig, user_config["config"])
        torch.set_num_threads(config.threads)
        state = user_config["state"] and resolve_in(user_config["state"], self._stores)
        device = torch.device("cuda" if user_config["gpus"] else "cpu")
        if device.type == "cpu":
            keep_freed_memory()
        checkpoint = resolve_in(user_config["checkpoint"], self._stores)
        return build_judge(config, checkpoint, user_config["version"], state, device)

    async def rehearse(self, user_config: dict[str, Any]) -> None:
        """Builds the judge that `reconfigure` would, and drops it; raises what would end a replica there."""
        await self._in_thread(self._build, user_config)

    async def rewards(
        self,
        request_id: str,
        frames: list[np.ndarray],
        actions: list[np.ndarray],
        episodes: list[str] | None = None,
        maps: bool = False,
        remember: bool = True,
    ) -> RewardAnswer:
        """The fragments' rewards; see `policies.rewards.RewardClient.submit`.

        Raises:
            ValueError: fragments that cannot be judged, or an id that another request used.
        """
        asked = digest(frames, actions, episodes, maps, remember)
        if request_id not in self._answers:
            self._answers[request_id] = asked, self._enqueue(frames, actions, episodes, maps, remember)
            self._answers[request_id][1].add_done_callback(
                lambda answer: answer.exception() and self._answers.pop(request_id, None)
            )
            if len(self._answers) > REMEMBERED_ANSWERS:
                self._answers.popitem(last=False)
        known, answer = self._answers[request_id]
        if known != asked:
            raise ValueError(f"request_id {request_id!r} was used by another request; allowed: a fresh UUID for each")
        return await asyncio.shield(answer)

    def _enqueue(
        self,
        frames: list[np.ndarray],
        actions: list[np.ndarray],
        episodes: list[str] | None,
        maps: bool,
        remember: bool,
    ) -> asyncio.Future[RewardAnswer]:
        sizes = {name: self._served[name] for name in ("frame_size", "num_actions")}
        check_fragments(frames, actions, episodes, **sizes)
        if self._config.novelty != "none" and episodes is None:
            raise ValueError(f"no episodes were named; allowed with novelty {self._config.novelty!r}: one per fragment")
        names = episodes if self._config.novelty != "none" and episodes is not None else [None] * len(frames)
        parts = (unfold(*fragment) for fragment in zip(frames, actions, names, strict=True))
        assert self._judge is not None
        request = Request(
            judge=self._judge,
            lengths=[len(taken) for taken in actions],
            waiting=deque(part for part in parts if len(part)),
            maps=maps,
            remember=remember,
            done=asyncio.get_running_loop().create_future(),
        )
        self._queue.append(request)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return request.done

    async def _work(self) -> None:
        """Judges until no request is waiting."""
        while self._queue:
            judge, remember = self._queue[0].judge, self._queue[0].remember
            batch = next_batch(self._queue, self._config.batch_size, whole=self._config.learns)
            succeeded = not batch or await self._serve(judge, batch)
            self._finish()
            if not succeeded:
                await self._in_thread(judge.forget)
            elif batch and remember and self._may_learn():
                await self._in_thread(self._learn, judge)

    def _may_learn(self) -> bool:
        return self._config.remembers and not (self._config.learns and any(each.judged for each in self._queue))

    async def _serve(self, judge: Judge, batch: list[tuple[Request, Windows]]) -> bool:
        """Judges a batch in the thread; returns whether that succeeded."""
        try:
            judged = await self._in_thread(self._judge_batch, judge, batch)
        except Exception as error:
            for request, _ in batch:
                if not request.done.done():
                    request.done.set_exception(error)
            return False
        for (request, _), judgement in zip(batch, judged, strict=True):
            request.judged.append(judgement)
        return True

    def _judge_batch(self, judge: Judge, batch: list[tuple[Request, Windows]]) -> list[Judgement]:
        started = time.perf_counter()
        windows = dataclasses.replace(join([part for _, part in batch]), remember=batch[0][0].remember)
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
        """Answers complete requests, and removes them and failed ones from the queue."""
        ended = [request for request in self._queue if request.done.done() or not request.waiting]
        self._queue = deque(request for request in self._queue if request.waiting and not request.done.done())
        for request in ended:
            if not request.done.done():
                try:
                    request.done.set_result(request.answer())
                except Exception as error:
                    request.done.set_exception(error)
            elapsed = time.perf_counter() - request.arrived
            self._counts["requests"] += 1
            self._latencies.append(elapsed)
            self._metrics["latency"].observe(elapsed)

    def _learn(self, judge: Judge) -> None:
        """Learns from what was judged; an error here costs some learning, not the answers."""
        try:
            judge.learn()
        except Exception:
            logger.exception("judge %s could not learn", judge.version)
            judge.forget()
        if judge is self._judge and time.perf_counter() - self._saved > SAVE_EVERY_S:
            self._try_to_save(judge)

    def _try_to_save(self, judge: Judge) -> None:
        self._saved = time.perf_counter()
        try:
            if self._config.stateful:
                save_state(judge, self._state)
        except Exception:
            logger.exception("the state of judge %s could not be saved", judge.version)

    async def save(self) -> None:
        """Writes the judge's state."""
        if self._judge is not None and self._config.stateful:
            await self._in_thread(save_state, self._judge, self._state)

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def describe(self) -> dict[str, Any]:
        """The reward, its version, and what it can judge."""
        assert self._judge is not None
        return {
            "kind": self._config.kind,
            "novelty": self._config.novelty,
            "remembers": self._config.remembers,
            **self._served,
            "version": self._judge.version,
        }

    async def stats(self) -> dict[str, Any]:
        """This replica's counts, recent throughput and recent latency (from arrival to answer)."""
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
