"""The bandit that chooses an arm per episode: sliding-window UCB (Garivier & Moulines 2008; 2003.13350, 3.2)."""

import math
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np


class SlidingWindowBandit:
    """Judges arms by the returns of the last episodes; older ones are forgotten, since agents change.

    Args:
        arms: how many.
        window: episodes that it remembers.
        epsilon: share of random choices.
        bonus: weight of √(1 / n), with n an arm's episodes in the window.
        scaled: whether returns are divided by their standard deviation in the window, so that one bonus fits any game.
    """

    def __init__(self, arms: int, *, window: int, epsilon: float, bonus: float, scaled: bool = False) -> None:
        self.arms, self.epsilon, self.bonus, self.scaled = arms, epsilon, bonus, scaled
        self.played: deque[tuple[int, float]] = deque(maxlen=window)  # arm and return

    def add(self, arm: int, value: float) -> None:
        """Notes an episode's undiscounted return of the game's own rewards."""
        self.played.append((arm, value))

    def choose(self, rng: np.random.Generator, playing: Iterable[int] = ()) -> int:
        """The arm of the next episode.

        Args:
            rng: for random choices.
            playing: arms of the episodes that others play just now. They count as plays, or all who choose at one
                moment would choose alike.
        """
        underway = np.bincount(list(playing), minlength=self.arms)
        scores = self.scores(underway)
        if scores.max() == math.inf:
            return int(np.argmax(scores))
        if rng.random() < self.epsilon:
            return int(rng.integers(self.arms))
        return int(np.argmax(scores))

    def best(self) -> int:
        """The arm with the highest mean return in the window; 0 before any episode."""
        means = self.means()
        return int(np.nanargmax(means)) if self.played else 0

    def counts(self) -> np.ndarray:
        """Episodes [arms] of each arm in the window."""
        return np.bincount([arm for arm, _ in self.played], minlength=self.arms)

    def means(self) -> np.ndarray:
        """Mean return [arms] of each arm in the window; NaN for an arm without episodes."""
        sums = np.bincount(
            [arm for arm, _ in self.played], weights=[value for _, value in self.played], minlength=self.arms
        )
        return np.divide(sums, self.counts(), out=np.full(self.arms, np.nan), where=self.counts() > 0)

    def scores(self, underway: np.ndarray | None = None) -> np.ndarray:
        """Mean return plus bonus [arms]; infinite for an arm without episodes.

        An arm whose first episodes are all underway counts as good as the best.
        """
        spread = float(np.std([value for _, value in self.played])) if self.scaled and self.played else 1.0
        counts = self.counts() + (0 if underway is None else underway)
        means = self.means() / (spread or 1.0)
        means = np.nan_to_num(means, nan=np.nanmax(means) if self.played else 0.0)
        with np.errstate(divide="ignore"):
            return np.where(counts > 0, means + self.bonus * np.sqrt(1 / counts), math.inf)

    def get_state(self) -> dict[str, Any]:
        return {"played": list(self.played)}

    def set_state(self, state: dict[str, Any]) -> None:
        self.played.clear()
        self.played.extend((int(arm), float(value)) for arm, value in state["played"])
