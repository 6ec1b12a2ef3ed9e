"""Running mean and spread of the rewards, to centre and scale them before the loss.

A world model's uncertainty varies little around a large mean (say, 0.23 ± 0.02), and an agent learns only from the
differences.

A further trained world model is a new *judge*: it is more certain of everything. So rewards are marked with their
judge and compared only with other rewards of that judge.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from policies.judged.moments import RunningMoments


class RewardScale:
    """Moments to scale rewards by, per judge and game.

    A judge is identified by the version in its answers. Its rewards are scaled by the moments of all its rewards for
    the same game: a world model is more certain of one game than of another, which says nothing about what to do in
    either. A judge that learns, or counts all play, appends its step count after a "+", and its rewards shrink over
    time: each answer's rewards get a scale of their own, or the first ones would swamp all later ones in the replay.
    """

    def __init__(self, horizon: int) -> None:
        """Args:
        horizon: as for `RunningMoments`.
        """
        self._horizon = horizon
        self._scales: list[RunningMoments] = []
        self._games: list[str] = []  # of each scale
        self._latest: dict[tuple[str, str], int] = {}  # index of the latest scale of each judge and game

    def add(self, version: str, rewards: Sequence[np.ndarray], game: str = "") -> int:
        """Adds the rewards of one answer for one game; returns the index of their scale."""
        name, learns, _ = version.partition("+")
        if learns or (name, game) not in self._latest:
            self._latest[name, game] = len(self._scales)
            self._scales.append(RunningMoments(self._horizon))
            self._games.append(game)
        number = self._latest[name, game]
        for values in rewards:
            self._scales[number].update(values)
        return number

    @property
    def judges(self) -> int:
        """Number of judges so far."""
        return len({name for name, _ in self._latest})

    def game(self, number: int) -> str:
        """The game of a scale."""
        return self._games[number]

    def normalize(self, values: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """Normalises rewards [T], each by the scale whose index is given, [T] (`RunningMoments.normalize`)."""
        normalized = np.zeros(len(values), np.float32)
        for number in np.unique(scales):
            given = scales == number
            normalized[given] = self._scales[number].normalize(values[given])
        return normalized

    def get_state(self) -> dict[str, Any]:
        return {
            "scales": [moments.get_state() for moments in self._scales],
            "games": list(self._games),
            "latest": dict(self._latest),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self._scales = [RunningMoments(self._horizon) for _ in state["scales"]]
        for moments, values in zip(self._scales, state["scales"], strict=True):
            moments.set_state(values)
        self._games, self._latest = list(state["games"]), dict(state["latest"])
