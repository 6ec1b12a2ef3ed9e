"""An explorer that stays in one spot is distinguished from one that explores."""

from collections.abc import Sequence

import pytest

from genie_ray.exploring.settling import SettlingDetector

START = [0.05, 0.05, 0.05]  # all environments in the same place
RISES = [0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.3, 0.3, 0.3, 0.3]


def settled(cells: Sequence[float]) -> list[bool]:
    detector = SettlingDetector()
    told = []
    for cells_per_step in cells:
        state = detector.get_state()
        detector = SettlingDetector()
        detector.set_state(state)  # as after a crash
        told.append(detector.update(cells_per_step=cells_per_step, reward=0.2))
    return told


def test_play_that_narrows_is_told() -> None:
    """From the first epoch at which the last three average less than a third of the widest three."""
    # averages of three: 0.05, 0.13, 0.22, 0.30, 0.21, 0.12, 0.03, 0.03
    assert settled([*START, 0.3, 0.3, 0.3, 0.03, 0.03, 0.03, 0.03]) == [False] * 8 + [True] * 2


@pytest.mark.parametrize(
    "cells",
    [
        [0.3] * 9,
        [*START, 0.3, 0.3, 0.3, 0.15, 0.15, 0.15],  # narrower, but not by two thirds
        [0.01] * 9,  # of a game in which nothing moves
        [*START, 0.3, 0.3, 0.3, 0.01, 0.01, 0.3],  # two epochs of falling into the same pit
    ],
)
def test_other_play_is_not(cells: Sequence[float]) -> None:
    assert not any(settled(cells))


def test_what_happened_is_told_in_figures() -> None:
    detector = SettlingDetector()
    for cells, reward in zip([*START, 0.3, 0.3, 0.3, 0.03, 0.03, 0.03], RISES, strict=False):
        detector.update(cells_per_step=cells, reward=reward)
    assert detector.describe() == (
        "play narrowed from 0.300 distinct cells a step (epochs 4 to 6) to 0.030, "
        "while the mean reward went from 0.2 to 0.3"
    )
