"""How collection grows with the number of workers, and which part gives way first.

Two cores cannot show what a cluster does, so this measures two things that they can:

    throttled   real workers with real emulators, each slowed to a fixed rate, so that they do not compete for a core;
                1, 2 and 4 of them, as on as many nodes of one CPU. The share of linear growth is told.
    driver      the processor time that the collecting command itself takes for a shard, and for watching a worker.
                Workers are processes that only wait. A least-squares fit gives both costs; from them follows how many
                real workers fill one core of the driver. This is a model, not a measurement at that size.

    python experiments/benchmarks/scaling.py --json scaling.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from rich.console import Console

sys.path.remove(str(Path(__file__).parent))  # where this file would shadow a module

from genie_ray.base.session import RayConfig, ray_session
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.plan import Collection, Policy
from genie_ray.collecting.pool import WorkerPool
from genie_ray.collecting.progress import GameBars
from genie_ray.collecting.shards import Shard, plan_shards
from genie_ray.collecting.worker import RolloutWorker
from genie_ray.envs.config import EnvConfig
from genie_ray.games.roms import require_rom, resolve_game

GAME = "Kangaroo-Atari2600-v0"
WORKERS = (1, 2, 4)
RATE = 40.0  # steps a second of a throttled worker, a tenth of what a core plays
WAITING = (4, 16, 48)  # workers that only wait
CORE_RATE = 465.0  # steps a second of a worker with a core of its own (docs/data.md)
SHARD_STEPS = 10_000  # collection.steps_per_shard


class ThrottledWorker(RolloutWorker):
    """A rollout worker that plays `RATE` steps a second."""

    def _sample(self, game: str, seed: int, max_steps: int | None) -> SingleAgentEpisode:
        begin = time.monotonic()
        episode = super()._sample(game, seed, max_steps)
        time.sleep(max(0.0, len(episode) / RATE - (time.monotonic() - begin)))
        return episode


class WaitingWorker:
    """Answers like a rollout worker, but only waits."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._begin = seconds, time.monotonic()

    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()

    def play(self, shard: Shard) -> tuple[int, int]:
        self._begin = time.monotonic()
        time.sleep(self._seconds)
        return shard.count, 0

    @ray.method(concurrency_group="watch")
    def progress(self) -> tuple[int, int]:
        return int(100 * (time.monotonic() - self._begin)), 0


def pool_of(start: Any, workers: int, wanted: int) -> WorkerPool:
    """A pool with exactly this many workers."""
    config = CollectionConfig(workers_min=workers, workers_max=workers)
    bars = GameBars("benchmark", "steps", {GAME: wanted}, {GAME: 0})
    return WorkerPool(start_worker=start, config=config, bars=bars)


def throttled_rate(workers: int, seconds: float) -> float:
    """Steps a second of some throttled workers together, from the first shard's end on."""
    per_shard = 50
    wanted = int(seconds * RATE / per_shard) * per_shard * workers
    with tempfile.TemporaryDirectory() as directory:
        collection = Collection(
            output=Path(directory),
            policy=Policy(name="random"),
            games=(GAME,),
            per_game=wanted,
            unit="steps",
            config=CollectionConfig(steps_per_shard=per_shard),
            env=EnvConfig(max_episode_steps=25),
            seed=0,
        )
        worker = ray.remote(num_cpus=1, max_restarts=0, concurrency_groups={"watch": 1})(ThrottledWorker)
        pool_of(lambda: worker.remote(collection), workers, wanted).play(collection.shards)
        ends = sorted(path.stat().st_mtime for path in Path(directory).glob("game=*/*.parquet"))
    begun = ends[workers - 1]  # by then, each worker has started
    return (len(ends) - workers) * per_shard / (ends[-1] - begun)


def driver_cost(workers: int, shards: int, seconds: float) -> tuple[float, float, float]:
    """Processor seconds of this process, the shards, and the worker-seconds of waiting workers."""
    worker = ray.remote(num_cpus=0, max_restarts=0, concurrency_groups={"watch": 1})(WaitingWorker)
    pool = pool_of(lambda: worker.remote(seconds), workers, shards)
    begin_cpu, begin = time.process_time(), time.monotonic()
    pool.play(plan_shards([GAME], shards, 1))
    return time.process_time() - begin_cpu, shards, workers * (time.monotonic() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="of each; the median counts")
    parser.add_argument("--seconds", type=float, default=20.0, help="of play in each run")
    parser.add_argument("--smoke", action="store_true", help="one short run of each, to see that it works")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    runs, seconds = (1, 4.0) if arguments.smoke else (arguments.runs, arguments.seconds)
    require_rom(resolve_game(GAME))
    with ray_session(RayConfig(threads_per_worker=1)):
        rates = {n: statistics.median(throttled_rate(n, seconds) for _ in range(runs)) for n in WORKERS}
        waiting = WAITING[:2] if arguments.smoke else WAITING
        rows = [
            driver_cost(n, int(n * seconds / length), length)
            for n in waiting
            for length in (0.5, 2.0)
            for _ in range(runs)
        ]
    cpu, *counts = np.array(rows).T
    (per_shard, per_worker), *_ = np.linalg.lstsq(np.stack(counts, axis=1), cpu, rcond=None)
    # A worker with a core of its own ends a shard every SHARD_STEPS / CORE_RATE seconds.
    most = 1 / (per_worker + per_shard * CORE_RATE / SHARD_STEPS)
    linear = {n: rates[n] / (n * rates[1]) for n in WORKERS}
    out = Console()
    for n in WORKERS:
        out.print(f"{n} throttled workers: {rates[n]:,.1f} steps/s, {linear[n]:.2f} of linear")
    out.print(f"driver: {1e3 * per_shard:.2f} ms a shard, {1e3 * per_worker:.2f} ms a second for each worker")
    out.print(
        f"model: one core of the driver is full at {most:,.0f} workers, {most * CORE_RATE:,.0f} steps/s, with "
        f"shards of {SHARD_STEPS:,} steps"
    )
    if arguments.json:
        figures = {
            "throttled_steps_per_second": rates,
            "share_of_linear": linear,
            "driver_ms_per_shard": 1e3 * per_shard,
            "driver_ms_per_worker_second": 1e3 * per_worker,
            "workers_that_fill_a_core": most,
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
