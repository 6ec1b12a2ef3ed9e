"""Novelty: a factor that falls with each return to what has already been shown.

    factor = n^−½ at the n-th visit to a place, in this episode ("episodic") or in all play ("lifelong")

The count is from Bellemare et al. 2016 (1606.01868), who count over all play; the memory of one episode and the use as
a factor are from NGU (Badia et al. 2020, 2002.06038). What counts as the same place is ours: a frame shows the place
whose tokens differ least from its own, if at most a share `tolerance` of them differ (0: an exact count), else a new
one. So a place that the model will never predict stops paying: until the episode ends, or as long as it is among the
last `MAX_PLACES` found.

Axis letters: M windows, N tokens of a frame, P places so far.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

MAX_EPISODES = 256  # remembered at once; the least recently seen is forgotten first
MAX_PLACES = 10_000  # remembered per episode, or for all play; the oldest are forgotten first
ALL_PLAY = ""  # stands for every episode if novelty is lifelong


class Places:
    """Places, and how often each was visited."""

    def __init__(self, tokens_PN: np.ndarray, visits_P: np.ndarray) -> None:
        self._tokens_PN, self._visits_P, self._number = tokens_PN, visits_P, len(visits_P)

    def visit(self, tokens_N: np.ndarray, tolerance: float, *, remember: bool) -> int:
        """How often the frame's place was visited, this visit included."""
        place = self._find(tokens_N, tolerance)
        visits = 1 if place is None else int(self._visits_P[place]) + 1
        if remember and place is None:
            self._add(tokens_N)
        elif remember:
            self._visits_P[place] = visits
        return visits

    def _find(self, tokens_N: np.ndarray, tolerance: float) -> int | None:
        if not self._number:
            return None
        differing_P = np.count_nonzero(self._tokens_PN[: self._number] != tokens_N, axis=1)
        nearest = int(differing_P.argmin())
        return nearest if differing_P[nearest] <= tolerance * len(tokens_N) else None

    def _add(self, tokens_N: np.ndarray) -> None:
        if self._number == MAX_PLACES:
            kept = slice(MAX_PLACES // 10, None)  # forgets many at once, since each time all others are moved
            self._tokens_PN, self._visits_P = self._tokens_PN[kept], self._visits_P[kept]
            self._number = len(self._visits_P)
        if self._number == len(self._visits_P):
            room = min(max(2 * self._number, 64), MAX_PLACES)
            self._tokens_PN = np.resize(self._tokens_PN, (room, len(tokens_N)))
            self._visits_P = np.resize(self._visits_P, room)
        self._tokens_PN[self._number], self._visits_P[self._number] = tokens_N, 1
        self._number += 1

    def get_state(self) -> dict[str, torch.Tensor]:
        """Tokens int32 [P, N] and visits int64 [P]."""
        known = {"tokens": self._tokens_PN, "visits": self._visits_P}
        return {name: torch.from_numpy(values[: self._number].copy()) for name, values in known.items()}


class Novelty:
    """Remembers the places shown by each episode, or by all of them together.

    Args:
        tolerance: share of tokens in which a frame may differ from the place it shows.
        lifelong: whether all episodes count as one.
    """

    def __init__(self, tolerance: float, *, lifelong: bool = False) -> None:
        self.tolerance, self.lifelong = tolerance, lifelong
        self.visits = 0  # to all places
        self.incarnation = 0  # how often a state was restored
        self._episodes: OrderedDict[str, Places] = OrderedDict()

    def factors(self, tokens_MN: np.ndarray, episodes: Sequence[str], *, remember: bool = True) -> np.ndarray:
        """The frames' factors, float32 [M] in (0, 1]. Frames are counted in the order given.

        `remember` matters for lifelong novelty only; within an episode every frame is counted.
        """
        names = [ALL_PLAY] * len(episodes) if self.lifelong else episodes
        counted = remember or not self.lifelong
        visits = [self._visit(tokens_N, name, counted) for tokens_N, name in zip(tokens_MN, names, strict=True)]
        return np.array(visits, np.float32) ** -0.5

    def _visit(self, tokens_N: np.ndarray, episode: str, remember: bool) -> int:
        if episode in self._episodes:
            self._episodes.move_to_end(episode)
        else:
            self._episodes[episode] = Places(np.empty((0, len(tokens_N)), np.int32), np.empty(0, np.int64))
            if len(self._episodes) > MAX_EPISODES:
                self._episodes.popitem(last=False)
        self.visits += remember
        return self._episodes[episode].visit(tokens_N, self.tolerance, remember=remember)

    def get_state(self) -> dict[str, Any]:
        """What is remembered; the least recently seen episode comes first."""
        episodes = {name: places.get_state() for name, places in self._episodes.items()}
        return {"episodes": episodes, "visits": self.visits, "incarnation": self.incarnation}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores a state from `get_state`."""
        self.visits, self.incarnation = state["visits"], state["incarnation"] + 1
        self._episodes = OrderedDict(
            (name, Places(places["tokens"].numpy().copy(), places["visits"].numpy().copy()))
            for name, places in state["episodes"].items()
        )
