"""Measured displacements in pictures with known displacements."""

import numpy as np
import pytest
from numpy.typing import NDArray

from genie_ray.probing.motion import compare

SPRITE = (np.random.default_rng(5).integers(2, size=(9, 7, 1)) * 120 + 100).astype(np.uint8) * np.ones(3, np.uint8)


def scene(*places: tuple[int, int], background: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """A picture with the sprite at positions (x, y)."""
    picture = np.full((120, 160, 3), (40, 0, 90), np.uint8) if background is None else background.copy()
    for x, y in places:
        picture[y : y + SPRITE.shape[0], x : x + SPRITE.shape[1]] = SPRITE
    return picture


def checks() -> NDArray[np.uint8]:
    """A background of two colours, in squares of 8 pixels."""
    squares = np.indices((120, 160)).sum(axis=0, where=True) // 8 % 2
    return np.where(squares[..., None] == 0, (0, 120, 0), (60, 60, 200)).astype(np.uint8)


def test_nothing_differs() -> None:
    change = compare(scene((50, 50)), scene((50, 50)))
    assert (change.area, change.arrived, change.left, change.scroll) == (0, 0, 0, (0.0, 0.0))
    assert np.isnan(change.shift).all()


@pytest.mark.parametrize("shift", [(12, 0), (-12, 0), (0, 15), (0, -15), (20, -11)])
@pytest.mark.parametrize("textured", [False, True])
def test_a_sprites_displacement(shift: tuple[int, int], textured: bool) -> None:
    """Exact to the pixel: the sprite's two positions do not overlap."""
    background = checks() if textured else None
    x, y = shift
    change = compare(scene((70 + x, 50 + y), background=background), scene((70, 50), background=background))
    assert change.shift == pytest.approx(shift, abs=0 if not textured else 1)
    assert change.arrived == change.left == change.area / 2 == SPRITE.shape[0] * SPRITE.shape[1]
    assert change.scroll == (0.0, 0.0)


def test_a_small_step_has_the_right_direction() -> None:
    """If the positions overlap, only the rim changes, and the displacement is not exact to the pixel."""
    for x, y in ((2, 0), (-2, 0), (0, 2), (0, -2)):
        measured = compare(scene((70 + x, 50 + y)), scene((70, 50))).shift
        assert measured[0] * x + measured[1] * y > 0


def test_something_that_appears_comes_from_nowhere() -> None:
    change = compare(scene((70, 50), (90, 20)), scene((70, 50)))
    assert (change.arrived, change.left) == (63, 0)
    assert np.isnan(change.shift).all()
    gone = compare(scene((70, 50)), scene((70, 50), (90, 20)))
    assert (gone.arrived, gone.left) == (0, 63)


@pytest.mark.parametrize("shift", [(-7, 0), (5, 3), (0, -9)])
def test_a_scrolled_picture(shift: tuple[int, int]) -> None:
    """The view moves over a landscape; a status line at the top stays."""
    landscape = np.random.default_rng(1).integers(256, size=(30, 40, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    x, y = shift

    def view(dx: int, dy: int) -> NDArray[np.uint8]:
        picture = landscape[60 - dy : 180 - dy, 80 - dx : 240 - dx].copy()
        picture[:16] = 0
        return picture

    assert compare(view(x, y), view(0, 0)).scroll == (float(x), float(y))


def test_a_new_picture_is_no_scroll() -> None:
    rng = np.random.default_rng(2)
    held, noop = (rng.integers(256, size=(120, 160, 3), dtype=np.uint8) for _ in range(2))
    assert compare(held, noop).scroll == (0.0, 0.0)
