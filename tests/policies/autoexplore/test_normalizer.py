"""Running moments against numpy."""

import numpy as np
import pytest

from policies.autoexplore.normalizer import RewardScale
from policies.judged.moments import MIN_STD, RunningMoments


def test_batches_add_up_to_the_whole() -> None:
    values = np.random.default_rng(0).normal(0.23, 0.02, 1000)
    moments = RunningMoments(horizon=10_000)
    for part in np.split(values, [1, 10, 400]):
        moments.update(part)
    assert moments.mean == pytest.approx(values.mean())
    assert moments.std == pytest.approx(values.std())
    normal = moments.normalize(values)
    assert normal.dtype == np.float32
    assert normal.mean() == pytest.approx(0, abs=1e-5)
    assert normal.std() == pytest.approx(1, abs=1e-5)


def test_nan_is_neutral() -> None:
    moments = RunningMoments(horizon=100)
    moments.update(np.array([1.0, np.nan, 3.0]))
    assert (moments.count, moments.mean, moments.std) == (2, 2, 1)
    moments.update(np.array([np.nan]))
    assert moments.count == 2
    np.testing.assert_array_equal(moments.normalize(np.array([np.nan, 3.0])), [0, 1])


def test_old_values_fade() -> None:
    moments = RunningMoments(horizon=100)
    moments.update(np.zeros(1000))
    for _ in range(10):
        moments.update(np.ones(100))
    assert moments.mean == pytest.approx(1, abs=1e-2)


def test_equal_rewards_give_no_signal() -> None:
    moments = RunningMoments(horizon=100)
    moments.update(np.full(50, 0.3))
    assert moments.std == MIN_STD
    np.testing.assert_allclose(moments.normalize(np.array([0.3])), 0, atol=1e-6)


def test_state_round_trip() -> None:
    moments = RunningMoments(horizon=100)
    moments.update(np.arange(10.0))
    copy = RunningMoments(horizon=100)
    copy.set_state(moments.get_state())
    for each in (moments, copy):
        each.update(np.arange(5.0))
    assert copy.get_state() == moments.get_state()


def test_horizon_is_checked() -> None:
    with pytest.raises(ValueError, match="horizon is 0"):
        RunningMoments(horizon=0)


def test_each_judges_rewards_are_scaled_by_its_own() -> None:
    """Another judge's rewards don't touch its scale."""
    scale = RewardScale(1_000)
    rng = np.random.default_rng(0)
    small, large = rng.normal(1, 0.1, 500).astype(np.float32), rng.normal(50, 7, 500).astype(np.float32)
    given = [("sha-a", small[:250]), ("sha-b", large), ("sha-a", small[250:])]
    assert [scale.add(version, [rewards]) for version, rewards in given] == [0, 1, 0]
    assert scale.judges == 2
    again = RewardScale(1_000)
    again.set_state(scale.get_state())
    normalized = again.normalize(np.concatenate([large, small]), np.repeat([1, 0], 500))
    np.testing.assert_allclose(normalized[:500], (large - large.mean()) / large.std(), atol=1e-4)
    np.testing.assert_allclose(normalized[500:], (small - small.mean()) / small.std(), atol=1e-4)
    assert again.add("sha-a", [large]) == 0
    assert abs(again.normalize(large, np.zeros(500, int)).mean()) < 2  # the restored judge continues with it


def test_rewards_of_a_judge_that_learns_are_scaled_by_those_of_their_time() -> None:
    """The rewards shrink: on one common scale, the first would be enormous and the last all alike."""
    scale, rng = RewardScale(100_000), np.random.default_rng(0)
    parts = [rng.normal(size, size / 10, 200).astype(np.float32) for size in 0.925 ** np.arange(60)]
    numbers = [scale.add(f"rf+0.{step}", [part[:50], part[50:]]) for step, part in enumerate(parts)]
    assert numbers == list(range(60))
    assert scale.judges == 1
    again = RewardScale(100_000)
    again.set_state(scale.get_state())
    for part, number in zip(parts, numbers, strict=True):
        expected = (part - part.mean()) / part.std()
        np.testing.assert_allclose(again.normalize(part, np.full(200, number)), expected, atol=1e-3)
    assert again.add("rf+1.0", [parts[0]]) == 60


def test_each_games_rewards_are_scaled_by_its_own() -> None:
    """A game that a world model is less certain of throughout is no reason to prefer one action over another."""
    scale, rng = RewardScale(1_000), np.random.default_rng(0)
    sure, unsure = rng.normal(0.2, 0.01, 500).astype(np.float32), rng.normal(0.6, 0.1, 500).astype(np.float32)
    assert [scale.add("sha", [sure], "Kangaroo"), scale.add("sha", [unsure], "Hero")] == [0, 1]
    assert [scale.game(number) for number in (0, 1)] == ["Kangaroo", "Hero"]
    assert scale.judges == 1
    again = RewardScale(1_000)
    again.set_state(scale.get_state())
    for number, rewards in enumerate((sure, unsure)):
        expected = (rewards - rewards.mean()) / rewards.std()
        np.testing.assert_allclose(again.normalize(rewards, np.full(500, number)), expected, atol=1e-3)
    assert again.add("sha", [unsure], "Hero") == 1
