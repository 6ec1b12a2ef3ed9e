"""Running moments against numpy."""

import numpy as np
import pytest

from policies.autoexplore.normalizer import MIN_STD, RewardScale, RunningMoments


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
    """A judge that only learned a little on is the same one; another's rewards don't touch its scale."""
    scale = RewardScale(1_000)
    rng = np.random.default_rng(0)
    small, large = rng.normal(1, 0.1, 500).astype(np.float32), rng.normal(50, 7, 500).astype(np.float32)
    for version, rewards in (("sha-a", small[:250]), ("sha-b+1", large), ("sha-a+7", small[250:])):
        scale.moments(scale.judge(version)).update(rewards)
    assert scale.judges == 2
    again = RewardScale(1_000)
    again.set_state(scale.get_state())
    normalized = again.normalize(np.concatenate([large, small]), np.repeat([1, 0], 500))
    np.testing.assert_allclose(normalized[:500], (large - large.mean()) / large.std(), atol=1e-4)
    np.testing.assert_allclose(normalized[500:], (small - small.mean()) / small.std(), atol=1e-4)
