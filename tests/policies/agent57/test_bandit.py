"""The sliding-window bandit by hand, and that it follows an arm that becomes better."""

import numpy as np
import pytest

from policies.agent57.bandit import SlidingWindowBandit


def bandit(window: int = 100, epsilon: float = 0.0, arms: int = 3, *, scaled: bool = False) -> SlidingWindowBandit:
    return SlidingWindowBandit(arms, window=window, epsilon=epsilon, bonus=1.0, scaled=scaled)


def test_scores_by_hand() -> None:
    rng, made = np.random.default_rng(0), bandit()
    for arm, value in ((0, 1.0), (1, 0.0), (2, 2.0)):
        made.add(arm, value)
    assert made.scores().tolist() == [2, 1, 3]
    made.add(2, 0.0)
    assert made.scores() == pytest.approx([2, 1, 1 + np.sqrt(1 / 2)])
    assert made.choose(rng) == 0
    assert made.best() in (0, 2)
    short = bandit(window=3)
    for arm, value in ((0, 1.0), (1, 0.0), (2, 2.0), (2, 0.0)):
        short.add(arm, value)
    assert short.scores() == pytest.approx([np.inf, 1, 1 + np.sqrt(1 / 2)])
    assert short.choose(rng) == 0


def test_every_arm_is_tried_first_and_none_twice_at_one_moment() -> None:
    rng, made, chosen = np.random.default_rng(0), bandit(arms=4), []
    for _ in range(8):
        chosen.append(made.choose(rng, chosen))
    assert chosen == [0, 1, 2, 3, 0, 1, 2, 3]
    made.add(2, 5.0)  # the first to end: the others count as good until they have ended, too
    assert [made.choose(rng, [0, 1, 3, *more]) for more in ([], [2], [2, 2])] == [0, 0, 0]
    assert made.choose(rng, [0, 0, 1, 1, 3]) == 2


def test_random_choices_are_uniform() -> None:
    rng, made = np.random.default_rng(0), bandit(epsilon=1.0)
    for arm in range(3):
        made.add(arm, float(arm))
    counts = np.bincount([made.choose(rng) for _ in range(3000)], minlength=3)
    assert ((counts - 1000) ** 2 / 1000).sum() < 13.8  # χ² with 2 degrees of freedom, p = 0.001


def test_it_follows_the_arm_that_becomes_better() -> None:
    rng, made = np.random.default_rng(0), bandit(window=60, epsilon=0.5)
    for episode in range(260):
        arm = made.choose(rng)
        made.add(arm, float(arm == (0 if episode < 100 else 1)))
        if episode == 99:
            assert made.best() == 0
    assert made.best() == 1


def test_scaled_returns_choose_alike_in_games_of_any_score() -> None:
    def choices(score: float, scaled: bool) -> list[int]:
        rng, made, chosen = np.random.default_rng(0), bandit(scaled=scaled), []
        for episode in range(60):
            arm = made.choose(rng)
            made.add(arm, score * ((arm == 1) + episode % 2))
            chosen.append(arm)
        return chosen

    assert choices(1.0, scaled=True) == choices(1000.0, scaled=True)
    assert choices(1.0, scaled=False) != choices(0.01, scaled=False)


def test_state_brings_back_the_same_choices() -> None:
    made, again = bandit(window=5), bandit(window=5)
    for arm, value in ((0, 1.0), (1, 0.0), (2, 2.0), (2, 0.0), (0, 3.0), (1, 1.0)):
        made.add(arm, value)
    again.set_state(made.get_state())
    assert again.scores().tolist() == made.scores().tolist()
    assert again.best() == made.best()
