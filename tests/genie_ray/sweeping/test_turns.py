"""Sweeps on one cluster take turns by what they take of it, and one that ends leaves its part to the others."""

import time
from typing import Any

import pytest
import ray
from ray.tune.search import Searcher

from genie_ray.sweeping import turns
from genie_ray.sweeping.turns import Claim, InTurn, Turns, may_start

THERE = {"CPU": 12.0, "GPU": 2.0}


def claim(begun: int, running: int, left: int, cpus: float = 2, gpus: float = 0) -> Claim:
    return Claim(name=str(begun), needs={"CPU": cpus, "GPU": gpus}, running=running, left=left)


def test_a_sweep_by_itself_fills_the_cluster() -> None:
    assert may_start(claim(0, 5, 9), [], THERE)
    assert not may_start(claim(0, 6, 9), [], THERE)
    assert not may_start(claim(0, 0, 0), [], THERE)
    assert may_start(claim(0, 1, 1, cpus=1, gpus=1), [], THERE)
    assert not may_start(claim(0, 2, 1, cpus=1, gpus=1), [], THERE)


def test_whoever_takes_the_least_is_next() -> None:
    early, late = claim(0, 2, 5), claim(1, 1, 5)
    assert may_start(late, [early], THERE)
    assert not may_start(early, [late], THERE)
    assert may_start(early, [claim(1, 1, 0)], THERE)  # has nothing left to start
    assert may_start(claim(0, 1, 5), [claim(1, 1, 5)], THERE)  # as much: who came first
    assert not may_start(claim(1, 1, 5), [claim(0, 1, 5)], THERE)


def test_shares_are_of_what_is_scarcest_for_each() -> None:
    """One of two GPUs is half of them; four of twelve CPUs are a third."""
    with_gpu, without = claim(0, 1, 5, cpus=1, gpus=1), claim(1, 2, 5)
    assert may_start(without, [with_gpu], THERE)
    assert not may_start(with_gpu, [without], THERE)


def test_a_large_trial_is_not_passed_by() -> None:
    small, large = claim(0, 2, 5), claim(1, 0, 1, cpus=10)
    assert not may_start(large, [small], THERE)  # 4 + 10 > 12
    assert not may_start(small, [large], THERE)


def test_trials_at_any_moment_fit_and_end_up_in_equal_parts() -> None:
    """Two sweeps of twenty trials each, on room for six: simulated, one trial ending at a time."""
    running, left = [0, 0], [20, 20]
    for ended in range(40):
        while able := [own for own in (0, 1) if may_start(*_seen(own, running, left))]:
            assert len(able) == 1  # never both at once, or they would start in the same room
            running[able[0]], left[able[0]] = running[able[0]] + 1, left[able[0]] - 1
        assert sum(running) == min(6, 40 - ended)
        if all(left):
            assert running == [3, 3]
        one = ended % 2 if running[ended % 2] else 1 - ended % 2
        running[one] -= 1
    assert (running, left) == ([0, 0], [0, 0])


def _seen(own: int, running: list[int], left: list[int]) -> tuple[Claim, list[Claim], dict[str, float]]:
    claims = [claim(begun, running[begun], left[begun]) for begun in (0, 1)]
    return claims[own], [claims[1 - own]], {"CPU": 12.0}


def test_sweeps_on_a_real_cluster(ray_session: None, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(turns, "POLL_S", 0.01)
    monkeypatch.setattr(turns, "TELL_EVERY_S", 0.0)
    third = ray.cluster_resources()["CPU"] / 3
    first = Turns(Claim(name="a", needs={"CPU": third}, left=9))
    searcher = InTurn(list(range(9)), first)
    assert [next_of(searcher, f"a{index}") for index in range(4)] == [{"trial": 0}, {"trial": 1}, {"trial": 2}, None]
    second = Turns(Claim(name="b", needs={"CPU": third}, left=2))
    other = InTurn([0, 1], second)
    capsys.readouterr()
    assert next_of(other, "b0") is None
    assert "1 other sweeps take" in capsys.readouterr().out
    searcher.on_trial_complete("a1", error=True)
    assert next_of(searcher, "a4") is None  # it is the other's turn
    assert next_of(other, "b0") == {"trial": 0}
    assert next_of(other, "b1") is None
    searcher.on_trial_complete("a2")
    assert next_of(searcher, "a5") == {"trial": 3}  # both took one, and this sweep came first
    first.close()  # as if its driver had been killed: what it took is free
    deadline = time.monotonic() + 30
    while next_of(other, "b2") is None:
        assert time.monotonic() < deadline
    assert next_of(other, "b3") == Searcher.FINISHED
    second.close()


def next_of(searcher: InTurn, trial_id: str) -> Any:
    """What the searcher says once its pause is over."""
    time.sleep(0.02)
    return searcher.suggest(trial_id)


def test_a_board_whose_process_dies_comes_back(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "POLL_S", 0.01)
    third = ray.cluster_resources()["CPU"] / 3
    first, second = (Turns(Claim(name=name, needs={"CPU": 2 * third}, left=2)) for name in ("c", "d"))
    assert first.begin()
    ray.kill(first._board, no_restart=False)
    deadline = time.monotonic() + 60
    while [(claim.running, claim.left) for claim in second._others()] != [(0, 0)]:  # it has come back, without a claim
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not first.begin()  # there is no room for two; but what it has is told again
    assert [(claim.running, claim.left) for claim in second._others()] == [(1, 1)]
    assert not second.begin()
    first.end()
    first.close()
    assert second.begin()
    second.close()
