"""Who is judged next: requests take turns, an episode keeps its order."""

import asyncio
from collections import deque

from genie_ray.rewards.batches import Request, next_batch
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.judges import Judge, UncertaintyJudge
from tests.genie_ray.rewards.small_world import noise_windows
from world_model.genie import GenieReduxG

CONFIG = RewardConfig()


def requests(judge: Judge, *asked: tuple[int, str | None], remember: bool = True) -> list[Request]:
    """Requests with these numbers of windows, from these episodes."""
    return [
        Request(
            judge=judge,
            lengths=[count + 3],
            waiting=deque([noise_windows(count, episode=episode)]),
            episodes=frozenset([episode] if episode else []),
            maps=False,
            remember=remember,
            done=asyncio.Future(loop=asyncio.new_event_loop()),
        )
        for count, episode in asked
    ]


def taken(waiting: list[Request], size: int) -> list[tuple[int, int]]:
    """The next batch, as pairs of a request and how many of its windows are taken."""
    return [(waiting.index(request), len(windows)) for request, windows in next_batch(waiting, size)]


def test_nobody_waits_for_a_long_request(models: list[GenieReduxG]) -> None:
    judge = UncertaintyJudge(models[0], CONFIG, "0")
    waiting = requests(judge, (1000, None), (3, None), (8, None))
    assert taken(waiting, 12) == [(0, 4), (1, 3), (2, 4), (0, 1)]
    assert taken(waiting, 12) == [(0, 6), (2, 4), (0, 2)]
    other = requests(UncertaintyJudge(models[0], CONFIG, "1"), (5, None))
    assert taken([*requests(judge, (5, None)), *other], 12) == [(0, 5)]
    evaluation = requests(judge, (5, None), remember=False)
    assert taken([*requests(judge, (5, None)), *evaluation], 12) == [(0, 5)]


def test_an_episode_is_judged_in_its_order(models: list[GenieReduxG]) -> None:
    judge = UncertaintyJudge(models[0], CONFIG, "0")
    waiting = requests(judge, (10, "a"), (4, "a"), (6, "b"))
    assert taken(waiting, 8) == [(0, 4), (2, 4)]
    assert taken(waiting, 8) == [(0, 4), (2, 2), (0, 2)]
    assert taken(waiting, 8) == [(1, 4)]
