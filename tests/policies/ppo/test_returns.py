"""Scaling rewards by the spread of their returns, against sums worked out by hand. What runs out pays no ending."""

import numpy as np
import pytest

from policies.ppo.returns import ReturnScale


def test_rewards_are_divided_by_the_spread_of_their_returns() -> None:
    scale = ReturnScale(gamma=0.5, horizon=1000, centred=False)
    (scaled,) = scale.scale(["a"], [np.array([1.0, 0.0, 4.0], np.float32)], [False])
    # Returns so far: 1, 0.5, 4.25; mean 23/12, squared deviations from it 0.840, 2.007, 5.444.
    std = np.std([1.0, 0.5, 4.25])
    np.testing.assert_allclose(scaled, np.array([1.0, 0.0, 4.0]) / std, rtol=1e-6)
    # An unfinished episode's return goes on, a finished one's does not.
    scale.scale(["a"], [np.array([0.0], np.float32)], [True])
    assert scale.std == pytest.approx(np.std([1.0, 0.5, 4.25, 2.125]))
    scale.scale(["a"], [np.array([0.0], np.float32)], [True])
    assert scale.std == pytest.approx(np.std([1.0, 0.5, 4.25, 2.125, 0.0]))


def test_centred_rewards_tell_how_much_better_than_average_play_is() -> None:
    scale = ReturnScale(gamma=0.0, horizon=1000, centred=True)
    rewards = np.array([10.0, 12.0, np.nan, 14.0], np.float32)
    (scaled,) = scale.scale(["a"], [rewards], [False])
    assert scale.mean == 12.0
    std = np.std([-2.0, 0.0, 0.0, 2.0])
    np.testing.assert_allclose(scaled, np.array([-2.0, 0.0, 0.0, 2.0]) / std, rtol=1e-6)


@pytest.mark.parametrize("centred", [False, True])
def test_a_room_that_pays_more_is_worth_more_though_all_of_a_piece_is_spent_in_it(centred: bool) -> None:
    """A scale per piece would make both rooms noise of the same size."""
    rng = np.random.default_rng(0)
    scale = ReturnScale(gamma=0.99, horizon=10_000, centred=centred)
    for epoch in range(10):
        rewards = [paid + 0.001 * rng.standard_normal(25).astype(np.float32) for paid in (0.1, 1.0)]
        poor, rich = scale.scale([f"{epoch}, poor", f"{epoch}, rich"], rewards, [True, True])
    assert rich.mean() - poor.mean() > 5 * max(rich.std(), poor.std())


def test_a_game_that_pays_little_is_centred_by_its_own_mean() -> None:
    """Else all its steps would be losses, and it would pay to end it."""
    scale = ReturnScale(gamma=0.0, horizon=1000, centred=True)
    rewards = [np.array([0.1, 0.3], np.float32), np.array([5.0, 7.0], np.float32), np.array([np.nan], np.float32)]
    poor, rich, undefined = scale.scale(["a", "b", "c"], rewards, [False] * 3, ["poor", "rich", "poor"])
    np.testing.assert_allclose([poor.sum(), rich.sum(), undefined.sum()], 0, atol=1e-6)
    assert scale.mean == pytest.approx(3.1)


def test_a_reward_that_runs_out_pays_no_ending() -> None:
    """Every step of an epoch pays the same, less in each epoch: no step is worth more than another, and none a loss."""
    scale = ReturnScale(gamma=0.99, horizon=2_000, centred=True)
    for epoch in range(20):
        paid = np.full(64, 0.05 * 0.9**epoch, np.float32)
        for scaled in scale.scale(["short", "long"], [paid[:8], paid], [True, False]):
            np.testing.assert_allclose(scaled, 0, atol=1e-3)


def test_its_state_goes_on() -> None:
    first, second = (ReturnScale(gamma=0.9, horizon=100, centred=True) for _ in range(2))
    first.scale(["a"], [np.arange(10, dtype=np.float32)], [True])
    second.set_state(first.get_state())
    again = [scale.scale(["b"], [np.ones(3, np.float32)], [True])[0] for scale in (first, second)]
    np.testing.assert_array_equal(*again)
