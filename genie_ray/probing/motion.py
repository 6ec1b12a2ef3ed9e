"""What an action changed in the picture: what moved where, whether something appeared, whether the view scrolled.

The two frames compared were equal until the action began. The pixels in which they differ show whatever moved twice:
where it is, and where no-op left it. Colour tells which of the two frames shows it at a pixel, and which shows the
background: around it, the background's colours are the frequent ones.

Axes: H W C pixels. Displacements are pixels (x, y), right and down positive.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

LEAST_DIFFERENCE = 24  # of a colour channel, for a pixel to count as changed
NEIGHBOURHOOD = 12  # pixels around a change within which colours are counted
SCROLL_SHARE = 0.03  # fraction of the picture that must have changed before a scroll is considered
LEAST_EXPLAINED = 0.5  # fraction of the changed pixels that a shift of the picture must explain

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Change:
    """How a frame differs from no-op's at the same step."""

    area: int  # changed pixels
    arrived: int  # of these, where the action's frame shows something and no-op's shows the background
    left: int  # the other way round
    shift: tuple[float, float]  # from the centre of what left to the centre of what arrived; NaN where one is empty
    scroll: tuple[float, float]  # shift of the whole picture relative to no-op's; 0, 0 if there is none


def compare(held: Pixels, noop: Pixels) -> Change:
    """Compares an action's frame [H, W, C] with no-op's."""
    changed = differs(held, noop)
    area = int(changed.sum())
    scroll = _scroll(held, noop, changed) if area > SCROLL_SHARE * changed.size else (0.0, 0.0)
    arrived, left = _figure(held, noop, changed)
    shift = (np.nan, np.nan)
    if arrived.any() and left.any():
        (ay, ax), (ly, lx) = np.nonzero(arrived), np.nonzero(left)
        shift = (float(ax.mean() - lx.mean()), float(ay.mean() - ly.mean()))
    return Change(area=area, arrived=int(arrived.sum()), left=int(left.sum()), shift=shift, scroll=scroll)


def differs(held: Pixels, noop: Pixels) -> Mask:
    """The pixels [H, W] in which two frames differ visibly."""
    return np.asarray(cv2.absdiff(held, noop)).max(axis=-1) >= LEAST_DIFFERENCE


def _figure(held: Pixels, noop: Pixels, changed: Mask) -> tuple[Mask, Mask]:
    """Where something arrived, and where something left: of a pixel's two colours, the background's is the one that is
    more frequent around the change, over both frames."""
    arrived, left = np.zeros_like(changed), np.zeros_like(changed)
    reach = np.ones((2 * NEIGHBOURHOOD + 1, 2 * NEIGHBOURHOOD + 1), np.uint8)
    count, regions = cv2.connectedComponents(cv2.dilate(changed.astype(np.uint8), reach))
    codes = [_colour_codes(picture) for picture in (held, noop)]
    for region in range(1, count):
        around = regions == region
        frequency = np.bincount(np.concatenate([code[around] for code in codes]), minlength=1 << 12)
        here = around & changed
        rarer = frequency[codes[0][here]] - frequency[codes[1][here]]
        arrived[here], left[here] = rarer < 0, rarer > 0
    return arrived, left


def _colour_codes(picture: Pixels) -> NDArray[np.int64]:
    """A number below 4,096 for each colour, 16 levels per channel."""
    levels = (picture >> 4).astype(np.int64)
    return levels[..., 0] << 8 | levels[..., 1] << 4 | levels[..., 2]


def _scroll(held: Pixels, noop: Pixels, changed: Mask) -> tuple[float, float]:
    """The shift of the changed part of the picture, if one shift explains most of what changed; else 0, 0."""
    ys, xs = np.nonzero(changed)
    part = np.s_[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    if min(changed[part].shape) < 32:
        return 0.0, 0.0
    before, after = (cv2.cvtColor(picture[part], cv2.COLOR_RGB2GRAY).astype(np.float32) for picture in (noop, held))
    height, width = before.shape
    (dx, dy), _ = cv2.phaseCorrelate(before, after, cv2.createHanningWindow((width, height), cv2.CV_32F))
    x, y = round(dx), round(dy)
    if (x, y) == (0, 0) or abs(x) > width // 2 or abs(y) > height // 2:
        return 0.0, 0.0
    ours = held[part][max(y, 0) : height + min(y, 0), max(x, 0) : width + min(x, 0)]
    theirs = noop[part][max(-y, 0) : height + min(-y, 0), max(-x, 0) : width + min(-x, 0)]
    unexplained = differs(ours, theirs).mean() / changed[part].mean()
    return (float(x), float(y)) if unexplained < 1 - LEAST_EXPLAINED else (0.0, 0.0)
