"""Workers that do not start."""

from collections.abc import Callable
from itertools import chain, repeat
from typing import Any

import pytest
import ray

from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.pool import FAILED_STARTS, WorkerPool
from genie_ray.collecting.progress import GameBars
from genie_ray.collecting.shards import Shard, plan_shards

SHARDS = plan_shards(["a game"], 30, 10)
LOST = {"working_dir": "gcs://_ray_pkg_0123456789abcdef.zip"}  # Ray can delete packages too early: its issue 36703


def worker(runtime_env: dict[str, str] | None) -> Any:
    """An actor that answers as a rollout worker does, and plays nothing."""

    class Worker:  # here, so that Ray copies it instead of importing this module
        def node(self) -> str:
            return ray.get_runtime_context().get_node_id()

        def play(self, shard: Shard) -> tuple[int, float]:
            return shard.count, 0.0

        def progress(self) -> tuple[int, int]:
            return 0, 0

    remote: Any = ray.remote(num_cpus=0)(Worker)
    return remote.options(runtime_env=runtime_env).remote()


def play(start_worker: Callable[[], Any]) -> dict[str, str]:
    """Plays all shards by one worker at a time; returns the games that were given up."""
    with GameBars("play", "steps", {"a game": 30}, {"a game": 0}) as bars:
        config = CollectionConfig(workers_min=1, workers_max=1)
        pool = WorkerPool(start_worker=start_worker, config=config, bars=bars)
        pool.play(SHARDS)
    return pool.given_up


@pytest.mark.slow
def test_a_worker_whose_code_does_not_arrive_is_replaced(ray_session: None) -> None:
    environments = chain([LOST], repeat(None))
    started = []

    def start() -> Any:
        started.append(next(environments))
        return worker(started[-1])

    assert play(start) == {}
    assert started == [LOST, None]


@pytest.mark.slow
def test_if_no_worker_starts_the_reason_is_told(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genie_ray.collecting.pool.START_AGAIN_S", 0.0)
    started = []

    def start() -> Any:
        started.append(LOST)
        return worker(LOST)

    with pytest.raises(RuntimeError, match=r"^no rollout worker starts: .*Failed to download runtime_env") as raised:
        play(start)
    assert len(started) == FAILED_STARTS
    assert "\n" not in str(raised.value)
