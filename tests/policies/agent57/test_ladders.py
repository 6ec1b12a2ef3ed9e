"""Ladders of arms and actors, against values worked out in float64 from the papers' formulas."""

import numpy as np
import pytest

from policies.agent57.config import Agent57Family, Agent57Learning, Agent57Play, Agent57Settings
from policies.agent57.ladders import agent57_gammas, betas, epsilons, ngu_gammas


def test_betas_rise_along_a_sigmoid_from_none_to_the_largest() -> None:
    expected = [0, 0.000381, 0.010334, 0.15, 0.289666, 0.299619, 0.299986, 0.3]
    assert betas(8, 0.3) == pytest.approx(expected, abs=1e-6)
    assert betas(32, 0.3)[15] == pytest.approx(0.15)
    assert betas(4, 0.3) == pytest.approx([0, 0.15, 0.29999, 0.3], abs=1e-5)
    assert betas(1, 0.3).tolist() == [0]
    assert betas(2, 0.3).tolist() == [0, 0.3]


def test_discounts() -> None:
    ngu = ngu_gammas(32, 0.997, 0.99)
    assert ngu[[0, 16, 31]] == pytest.approx([0.997, 0.994415, 0.99], abs=1e-6)
    agent57 = agent57_gammas(32, 0.9999, 0.997, 0.99)
    assert agent57[[0, 7, 8, 31]] == pytest.approx([0.9999, 0.997, 0.997, 0.99])
    assert len(agent57) == 32
    assert (np.diff(agent57) <= 0).all()


def test_epsilons_of_actors() -> None:
    assert epsilons(8, 0.4, 7)[[0, -1]] == pytest.approx([0.4, 6.5536e-4])
    assert epsilons(8, 0.4, 8)[-1] == pytest.approx(2.62144e-4)
    assert Agent57Play(runners=2, num_envs=4, alpha=7).epsilons() == pytest.approx(epsilons(8, 0.4, 7))


def test_without_novelty_no_arm_seeks_any() -> None:
    from dataclasses import replace

    settings = Agent57Settings()
    off = replace(settings, novelty=replace(settings.novelty, enabled=False))
    assert settings.weights().max() == pytest.approx(0.3)
    assert off.weights().tolist() == [0] * 32


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Agent57Family(arms=4), "arms is 4; allowed: 9 or more"),
        (lambda: Agent57Family(gamma_max=1.0), "allowed: gamma_min ≤ gamma_max < 1"),
        (lambda: Agent57Learning(period=200), "period is 200; allowed: burn_in"),
        (lambda: Agent57Learning(learning_starts=9_000_000), "at most replay_capacity"),
        (lambda: Agent57Settings(learning=Agent57Learning(own_share=0.5)), "only heads for all arms"),
    ],
)
def test_settings_that_cannot_be(made: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made()  # type: ignore[operator]
