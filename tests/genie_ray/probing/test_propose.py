"""Labels from hand-made measurements."""

import numpy as np
import pytest

from genie_ray.probing.motion import Change
from genie_ray.probing.propose import Guess, propose, read_changes, vote

NOWHERE = (float("nan"), float("nan"))


def moved(*shifts: tuple[float, float], arrived: int = 50, left: int = 50) -> list[Change]:
    return [Change(area=arrived + left, arrived=arrived, left=left, shift=shift, scroll=(0.0, 0.0)) for shift in shifts]


GONE = moved(NOWHERE, arrived=0, left=0)


def path(x: float, y: float, steps: int = 20) -> list[Change]:
    """A steady move."""
    return moved(*[(x * t, y * t) for t in range(steps)])


@pytest.mark.parametrize(
    ("action", "changes", "label"),
    [
        ("RIGHT", path(3, 0), "right"),
        ("RIGHT", path(-3, 1), "left"),
        ("UP", path(0, -3), "up"),
        ("DOWN", path(0, 3), "down"),
        ("UP", moved(*[(0, -24 * np.sin(np.pi * t / 16)) for t in range(20)]), "jump"),
        ("UP", [c for t in range(10) for c in moved((0, -3 * t)) + GONE], "up"),  # drawn in every other frame
        ("RIGHT", path(4, 7), "right"),  # over an edge
        ("DOWN", path(-22, 14), "down"),
        ("RIGHT", moved(NOWHERE, arrived=1, left=0) + GONE * 11, "none"),  # a flicker
        ("DOWN", moved(*[(0, 4)] * 20, arrived=20, left=40), "crouch"),
        ("JUMP", moved(*[NOWHERE] * 20, arrived=12, left=0), "shoot"),
        ("JUMP", moved(*[(2, -1)] * 4) + GONE * 8, "strike"),
        ("JUMP", path(4, 0), "use"),
        ("LEFT", moved(*[(1, 1)] * 20), "turn_left"),
        ("RIGHT", moved(*[(1, 1)] * 20), "turn_right"),
    ],
)
def test_rules(action: str, changes: list[Change], label: str) -> None:
    assert read_changes(action, changes).label == label


def test_a_view_that_scrolls_moves_the_other_way_than_the_picture() -> None:
    changes = [Change(area=9000, arrived=4000, left=4000, shift=(-6, 0), scroll=(-6.0, 0.0))] * 12
    guess = read_changes("RIGHT", changes)
    assert (guess.label, guess.scroll) == ("right", (-6.0, 0.0))


def guesses(**counts: int) -> list[Guess]:
    return [Guess(label=label, onset=None if label == "none" else 1) for label, n in counts.items() for _ in range(n)]


@pytest.mark.parametrize(
    ("given", "label"),
    [
        (guesses(right=5, left=2, none=1), "right"),
        (guesses(right=3, none=5), "right"),  # what it does where it has any effect
        (guesses(right=1, none=7), "none"),
        (guesses(none=8), "none"),
        (guesses(up=3, none=5), "climb"),  # only in some places
        (guesses(up=5, none=3), "up"),
    ],
)
def test_votes(given: list[Guess], label: str) -> None:
    assert [proposal.label for proposal in vote({"UP": given})] == [label]


def test_evidence_tells_votes_and_measurements() -> None:
    given = [
        Guess(label="right", onset=1, area=100, shift=(12.0, -1.0), variables=("score",)),
        Guess(label="right", onset=2, area=120, shift=(14.0, -1.0), variables=("lives",)),
        Guess(label="none"),
    ]
    (proposal,) = vote({"RIGHT": given})
    assert proposal.evidence == (
        "right 2, none 1 of 3 contexts; 110 pixels differ, moved by (+13, -1); lives, score differ"
    )


def test_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="the lead-in of every context ends the game"):
        propose([])
