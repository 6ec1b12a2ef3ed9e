"""Novelty: a factor that falls with each return to what has been shown already.

    factor = n^−½ for the n-th visit of this episode ("episodic"), or of all play ("lifelong")

The count is of Bellemare et al. 2016 (1606.01868), there over all play; the memory of one episode and the place as a
factor are of NGU (Badia et al. 2020, 2002.06038). What counts as the same place is ours: two frames show the same if at
most a share `tolerance` of their tokens differ (0: an exact count). So a place that the model will never predict stops
paying: for the episode, which forgets at a death, or for good.

Axis letters: M windows, N tokens of a frame, V visits so far.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MAX_EPISODES = 256  # remembered at once; those unseen for longest are forgotten
MAX_VISITS = 10_000  # remembered of one episode, or of all play; the oldest are forgotten
ALL_PLAY = ""  # stands for every episode where novelty is lifelong


class Novelty:
    """Remembers the tokens that each episode has shown, or all of them together.

    Args:
        tolerance: share of tokens in which two frames may differ and still show the same.
        lifelong: whether all episodes count as one.
    """

    def __init__(self, tolerance: float, *, lifelong: bool = False) -> None:
        self.tolerance, self.lifelong = tolerance, lifelong
        self._visits: OrderedDict[str, np.ndarray] = OrderedDict()  # int32 [V, N] of each episode

    def factors(self, tokens_MN: np.ndarray, episodes: Sequence[str]) -> np.ndarray:
        """The frames' factors, float32 [M] in (0, 1]; remembers them, in this order."""
        names = [ALL_PLAY] * len(episodes) if self.lifelong else episodes
        return np.array(
            [self._visit(tokens_N, name) for tokens_N, name in zip(tokens_MN, names, strict=True)], np.float32
        )

    def _visit(self, tokens_N: np.ndarray, episode: str) -> float:
        earlier_VN = self._visits.pop(episode, np.empty((0, len(tokens_N)), np.int32))
        same = int(((earlier_VN != tokens_N).mean(axis=1) <= self.tolerance).sum())
        kept_VN = np.concatenate([earlier_VN[-MAX_VISITS + 1 :], tokens_N[None].astype(np.int32)])
        self._visits[episode] = kept_VN  # at the end of the order
        if len(self._visits) > MAX_EPISODES:
            self._visits.popitem(last=False)
        return (same + 1) ** -0.5

    def get_state(self) -> dict[str, Tensor]:
        """What is remembered, the episode unseen for longest first."""
        return {episode: torch.from_numpy(visits_VN) for episode, visits_VN in self._visits.items()}

    def set_state(self, state: dict[str, Tensor]) -> None:
        """Takes up a state of `get_state`."""
        self._visits = OrderedDict((episode, visits_VN.numpy()) for episode, visits_VN in state.items())
