"""An elastic pool of rollout workers: hands out shards, requeues those of lost workers, gives up failing games.

Workers come and go. `workers_min` are requested even if the cluster has no room for them, so that an autoscaler makes
room; more are started, up to `workers_max`, while CPUs are free. A worker that does not start is replaced; if one is
lost, another replays its shard. A game whose shard fails `tries` times (its worker dies, its emulator raises, or no
step ends for `step_timeout_s`) is given up, and the others continue. The loss of a node counts as no game's failure.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError, RayError, RayTaskError, RuntimeEnvSetupError

from genie_ray.base.errors import GameError, cause_of, one_line
from genie_ray.base.progress import console
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.progress import GameBars
from genie_ray.collecting.shards import Shard

POLL_S = 1.0
PATIENCE_S = 30.0  # without a worker, before a message says so
GOODBYE_S = 10.0  # for killed workers to exit
FAILED_STARTS = 5  # of workers, in a row, before giving up
START_AGAIN_S = (
    2.0  # after a failed start, more after each further one: for 10 s, Ray only repeats an error of its setup
)


@dataclass(kw_only=True, eq=False)
class _Worker:
    """A rollout worker and what it is doing."""

    actor: Any
    task: ray.ObjectRef | None  # starting (no node yet), playing (a shard), or idle (None)
    node: str | None = None
    shard: Shard | None = None
    poll: ray.ObjectRef | None = None  # a pending request for its progress
    steps: int = 0  # of its shard
    stepped: float = 0.0  # when `steps` last grew; time.monotonic
    game: str | None = None  # whose emulator it has


@dataclass(kw_only=True, eq=False)
class WorkerPool:
    """Plays all shards, except those of games that are given up."""

    start_worker: Callable[[], Any]  # makes the actor
    config: CollectionConfig
    bars: GameBars
    given_up: dict[str, str] = field(default_factory=dict)  # game → why
    _workers: list[_Worker] = field(default_factory=list)
    _queue: deque[Shard] = field(default_factory=deque)
    _failures: Counter[Shard] = field(default_factory=Counter)
    _failed_starts: int = 0
    _start_after: float = 0.0  # time.monotonic
    _polled: float = 0.0
    _lonely_since: float | None = None

    def play(self, shards: Iterable[Shard]) -> None:
        """Returns when every shard is played or its game is given up.

        Raises:
            RuntimeError: no worker starts.
            Exception: a worker raised an error that its game did not cause (such as a full disk).
        """
        self._queue.extend(shards)
        try:
            while self._queue or any(worker.shard for worker in self._workers):
                self._resize()
                self._hand_out()
                self._settle()
                self._watch()
                self._say_what_is_waited_for()
        finally:
            # An interrupt may come between the end of a task and that of its shard.
            busy = [worker.task for worker in self._workers if worker.shard is not None and worker.task is not None]
            for worker in list(self._workers):
                self._discard(worker)
            if busy:  # so that no file appears after this
                ray.wait(busy, num_returns=len(busy), timeout=GOODBYE_S)

    def _resize(self) -> None:
        """Starts workers: the minimum at once, more while CPUs are free, never more than there is work for."""
        work = len(self._queue) + sum(worker.shard is not None for worker in self._workers)
        room = min(self.config.workers_max, work) - len(self._workers)
        if room <= 0 or time.monotonic() < self._start_after:
            return
        lacking = self.config.workers_min - len(self._workers)
        starting = sum(worker.node is None for worker in self._workers)
        free = int(ray.available_resources().get("CPU", 0)) - starting
        for _ in range(min(room, max(lacking, free))):
            actor = self.start_worker()
            self._workers.append(_Worker(actor=actor, task=actor.node.remote()))

    def _say_what_is_waited_for(self) -> None:
        now = time.monotonic()
        if any(worker.node for worker in self._workers):
            self._lonely_since = None
        elif self._lonely_since is None:
            self._lonely_since = now
        elif now - self._lonely_since > PATIENCE_S:
            self._lonely_since = now
            free = ray.available_resources().get("CPU", 0)
            console.print(
                f"no rollout worker for {PATIENCE_S:.0f} s ({free:g} CPUs are free): waiting for one to start"
            )

    def _hand_out(self) -> None:
        """Gives each idle worker a shard, preferably of the game whose emulator it has."""
        for worker in self._workers:
            if worker.task is None and self._queue:
                shard = next((shard for shard in self._queue if shard.game == worker.game), self._queue[0])
                self._queue.remove(shard)
                worker.shard, worker.game, worker.poll = shard, shard.game, None
                worker.steps, worker.stepped = 0, time.monotonic()
                worker.task = worker.actor.play.remote(shard)
                self.bars.begin(shard)

    def _settle(self) -> None:
        """Waits briefly for tasks to end, and handles their results."""
        tasks = {worker.task: worker for worker in self._workers if worker.task is not None}
        if not tasks:
            time.sleep(POLL_S)
            return
        ended, _ = ray.wait(list(tasks), num_returns=1, timeout=POLL_S)
        for task in ended:
            worker = tasks[task]
            try:
                result = ray.get(task)
            except RayTaskError as error:
                if not isinstance(error.cause, GameError):
                    raise cause_of(error) from error
                self._lost(worker, error.cause.reason)
            except RayError as error:  # its worker is gone, or did not start
                self._lost(worker, self._blame(worker, error))
            else:
                self._succeeded(worker, result)

    def _succeeded(self, worker: _Worker, result: Any) -> None:
        worker.task = None
        if worker.node is None:
            worker.node, self._failed_starts = result, 0
            return
        assert worker.shard is not None
        steps, memory_mb = result
        self.bars.finish(worker.shard, steps)
        worker.shard = None
        if memory_mb > self.config.worker_memory_mb:
            self._discard(worker)

    def _blame(self, worker: _Worker, error: RayError) -> str | None:
        """Why a worker died, if its game may be the cause; None if the node or the network failed."""
        if worker.node is None:
            self._failed_starts += 1
            self._start_after = time.monotonic() + START_AGAIN_S * self._failed_starts
            if self._failed_starts == FAILED_STARTS:
                raise RuntimeError(f"no rollout worker starts: {_in_one_line(error)}") from error
        if isinstance(error, OutOfMemoryError):
            return "Ray killed its rollout worker for lack of memory"
        gone = not any(node["NodeID"] == worker.node and node["Alive"] for node in ray.nodes())
        return None if gone or not isinstance(error, ActorDiedError) else "its rollout worker died"

    def _lost(self, worker: _Worker, reason: str | None) -> None:
        """Requeues the worker's shard, or gives up its game."""
        self._discard(worker)
        shard = worker.shard
        if shard is None:
            return
        self.bars.abandon(shard)
        if reason is not None:
            self._failures[shard] += 1
            if self._failures[shard] >= self.config.tries:
                self.given_up.setdefault(shard.game, f"{reason} ({self.config.tries} times)")
                self._queue = deque(other for other in self._queue if other.game != shard.game)
        if shard.game not in self.given_up:
            self._queue.append(shard)

    def _discard(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        ray.kill(worker.actor)

    def _watch(self) -> None:
        """Asks busy workers for their progress; those that make no step count as lost."""
        now = time.monotonic()
        if now - self._polled < POLL_S:
            return
        self._polled = now
        for worker in [worker for worker in self._workers if worker.shard is not None]:
            self._read_progress(worker, now)
            if now - worker.stepped > self.config.step_timeout_s:
                self._lost(worker, f"no step within {self.config.step_timeout_s:g} s")

    def _read_progress(self, worker: _Worker, now: float) -> None:
        assert worker.shard is not None
        if worker.poll is not None:
            answered, _ = ray.wait([worker.poll], timeout=0)
            if not answered:
                return
            try:
                steps, episodes = ray.get(worker.poll)
            except RayError:  # its task will report the error
                return
            if steps != worker.steps:
                worker.steps, worker.stepped = steps, now
                self.bars.advance(worker.shard, steps if worker.shard.unit == "steps" else episodes, steps)
        worker.poll = worker.actor.progress.remote()


def _in_one_line(error: RayError) -> str:
    """What an error of Ray's says, without the pages about its surroundings."""
    lines = str(error).strip().split("\n")
    if isinstance(error, RuntimeEnvSetupError):
        return lines[-1]
    return lines[0] if isinstance(error, OutOfMemoryError) else one_line(error)
