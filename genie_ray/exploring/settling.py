"""Detects an explorer that settled in one spot: the main risk if the reward is a frozen model's uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class SettlingDetector:
    """Detects when play narrows: the policy settled in one spot instead of exploring.

    Play is narrow when an epoch's distinct cells per step, averaged over the last `WINDOW` epochs, are fewer than
    `NARROW` times those of the widest `WINDOW` epochs so far. Cells are counted afresh in each epoch, as the number new
    to the whole training falls for any policy. The first epochs are no baseline: all environments start in one place.
    """

    WINDOW = 3
    NARROW = 1 / 3

    def __init__(self) -> None:
        self._cells: list[float] = []  # per step, of each epoch
        self._rewards: list[float] = []

    def update(self, *, cells_per_step: float, reward: float) -> bool:
        """Adds an epoch; returns whether play has settled."""
        self._cells.append(cells_per_step)
        self._rewards.append(reward)
        if len(self._cells) < self.WINDOW:
            return False
        widths = self._averages(self._cells)
        return bool(widths[-1] < self.NARROW * widths.max())

    def describe(self) -> str:
        """How far play narrowed, and how the reward changed meanwhile; needs at least `WINDOW` epochs."""
        widths, rewards = self._averages(self._cells), self._averages(self._rewards)
        widest = int(widths.argmax())
        return (
            f"play narrowed from {widths[widest]:.3f} distinct cells a step (epochs {widest + 1} to "
            f"{widest + self.WINDOW}) to {widths[-1]:.3f}, while the mean reward went from {rewards[widest]:.3g} to "
            f"{rewards[-1]:.3g}"
        )

    def _averages(self, values: Sequence[float]) -> np.ndarray:
        """Averages over every `WINDOW` consecutive epochs."""
        return np.lib.stride_tricks.sliding_window_view(np.asarray(values), self.WINDOW).mean(1)

    def get_state(self) -> dict[str, Any]:
        return {"cells": self._cells, "rewards": self._rewards}

    def set_state(self, state: dict[str, Any]) -> None:
        self._cells, self._rewards = list(state["cells"]), list(state["rewards"])
