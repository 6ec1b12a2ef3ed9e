"""Which windows are judged next: in order of arrival, so that an episode keeps its order."""

import asyncio
from collections import deque

from genie_ray.rewards.batches import Request, next_batch
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.judges import Judge, UncertaintyJudge
from tests.genie_ray.rewards.small_world import noise_windows
from world_model.genie import GenieReduxG

CONFIG = RewardConfig()


def requests(judge: Judge, *counts: int, remember: bool = True) -> list[Request]:
    """Requests with these numbers of windows."""
    return [
        Request(
            judge=judge,
            lengths=[count + 3],
            waiting=deque([noise_windows(count)]),
            maps=False,
            remember=remember,
            done=asyncio.Future(loop=asyncio.new_event_loop()),
        )
        for count in counts
    ]


def taken(waiting: list[Request], size: int, *, whole: bool = False) -> list[tuple[int, int]]:
    """The next batch, as (request, number of windows)."""
    return [(waiting.index(request), len(windows)) for request, windows in next_batch(waiting, size, whole=whole)]


def test_requests_share_batches_in_order_of_arrival(models: list[GenieReduxG]) -> None:
    judge = UncertaintyJudge(models[0], CONFIG, "0")
    waiting = requests(judge, 15, 3, 8)
    assert taken(waiting, 12) == [(0, 12)]
    assert taken(waiting, 12) == [(0, 3), (1, 3), (2, 6)]
    assert taken(waiting, 12) == [(2, 2)]
    assert taken(waiting, 12) == []


def test_requests_are_not_begun_that_a_batch_cannot_end(models: list[GenieReduxG]) -> None:
    """Then a judge can learn after the batch, and has judged no request in part."""
    judge = UncertaintyJudge(models[0], CONFIG, "0")
    waiting = requests(judge, 15, 3, 8)
    assert taken(waiting, 12, whole=True) == [(0, 12)]
    assert taken(waiting, 12, whole=True) == [(0, 3), (1, 3)]
    assert taken(waiting, 12, whole=True) == [(2, 8)]


def test_a_batch_has_one_judge_and_one_rule_of_remembering(models: list[GenieReduxG]) -> None:
    judge, newer = (UncertaintyJudge(models[0], CONFIG, version) for version in ("0", "1"))
    assert taken([*requests(judge, 5), *requests(newer, 5)], 12) == [(0, 5)]
    assert taken([*requests(judge, 5), *requests(judge, 5, remember=False)], 12) == [(0, 5)]
