"""Krippendorff's α: how far raters agree beyond chance, for any number of raters and with answers missing.

α = 1 − observed / expected disagreement; 1 is perfect agreement, 0 is chance.
Source: Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011.
Axes: U units, V values in their order.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Level = Literal["nominal", "ordinal"]


def krippendorff_alpha(counts_UV: NDArray[np.int64], level: Level) -> float | None:
    """α of how many raters gave each value to each unit.

    Args:
        counts_UV: units with fewer than two answers do not count.
        level: `nominal`: any two different values disagree alike; `ordinal`: values have an order, and the more
            answers lie between two values the more they disagree.

    Returns:
        None where there is nothing to compare: no unit with two answers, or only one value.
    """
    counts_UV = counts_UV[counts_UV.sum(axis=1) > 1]
    if not len(counts_UV):
        return None
    answers_U = counts_UV.sum(axis=1)
    # Coincidences: each pair of answers within a unit, weighted so that each answer of a unit counts once.
    pairs_UVV = counts_UV[:, :, None] * counts_UV[:, None, :] - counts_UV[:, :, None] * np.eye(counts_UV.shape[1])
    coincidences_VV = (pairs_UVV / (answers_U - 1)[:, None, None]).sum(axis=0)
    totals_V = coincidences_VV.sum(axis=0)
    apart_VV = _apart(totals_V, level)
    expected = (np.outer(totals_V, totals_V) - np.diag(totals_V)) * apart_VV / (totals_V.sum() - 1)
    if not expected.sum():
        return None
    return float(1 - (coincidences_VV * apart_VV).sum() / expected.sum())


def _apart(totals_V: NDArray[np.float64], level: Level) -> NDArray[np.float64]:
    """The squared difference between values."""
    if level == "nominal":
        return 1 - np.eye(len(totals_V))
    ranks_V = np.cumsum(totals_V) - totals_V / 2  # the sum from one value to another, half of both ends taken away
    return np.square(ranks_V[:, None] - ranks_V[None, :])
