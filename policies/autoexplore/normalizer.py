"""Running mean and spread of the rewards, to centre and scale them before the loss.

A world model's uncertainty varies little around a large mean (0.23 ± 0.02, say); what an agent can learn from is the
difference. Moments are merged batch by batch (Chan, Golub & LeVeque 1979); beyond a horizon the old ones fade, since
the rewards drift as policy and world model change.

A world model that was trained on is another *judge*: it is surer of everything. Rewards are therefore marked with their
judge and compared with that one's only.
"""

from typing import Any

import numpy as np

# Rewards closer together than this are equal: their differences are rounding, not signal.
MIN_STD = 1e-5


def reward_figures(rewards: np.ndarray) -> dict[str, float]:
    """How rewards are distributed; nothing where none is defined."""
    if np.isnan(rewards).all():
        return {}
    return {
        "reward_mean": float(np.nanmean(rewards)),
        "reward_std": float(np.nanstd(rewards)),
        "reward_min": float(np.nanmin(rewards)),
        "reward_max": float(np.nanmax(rewards)),
    }


class RunningMoments:
    """Mean and standard deviation of a stream of values, in which NaN means "no value"."""

    def __init__(self, horizon: int) -> None:
        """Args:
        horizon: number of latest values that count in full, ≥ 1; older ones fade out geometrically.
        """
        if horizon < 1:
            raise ValueError(f"horizon is {horizon}; allowed: 1 or more")
        self.horizon = horizon
        self.count = 0.0
        self.mean = 0.0
        self.squares = 0.0  # sum of squared deviations from the mean

    @property
    def std(self) -> float:
        """Standard deviation, at least MIN_STD."""
        return max(float(np.sqrt(self.squares / self.count)), MIN_STD) if self.count else MIN_STD

    def update(self, values: np.ndarray) -> None:
        """Takes new values in; NaN are left out."""
        known = values[~np.isnan(values)].astype(np.float64)
        if not known.size:
            return
        total = self.count + known.size
        delta = known.mean() - self.mean
        self.squares += known.var() * known.size + delta**2 * self.count * known.size / total
        self.mean += float(delta * known.size / total)
        self.count = total
        if self.count > self.horizon:
            self.squares *= self.horizon / self.count
            self.count = float(self.horizon)

    def normalize(self, values: np.ndarray) -> np.ndarray:
        """(values − mean) / std as float32; NaN becomes 0, which favours and disfavours nothing."""
        return np.nan_to_num((values - self.mean) / self.std, nan=0.0).astype(np.float32)

    def get_state(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def set_state(self, state: dict[str, Any]) -> None:
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]


class RewardScale:
    """Running moments of each judge's rewards.

    A judge is known by the version that answers carry; what stands behind a "+" there counts the small steps of one
    that learns while it judges, and makes no other judge of it.
    """

    def __init__(self, horizon: int) -> None:
        """Args:
        horizon: as for `RunningMoments`.
        """
        self._horizon = horizon
        self._moments: dict[str, RunningMoments] = {}

    def judge(self, version: str) -> int:
        """A number for the judge of that version: 0 for the first that was seen, then 1, …"""
        name = version.partition("+")[0]
        self._moments.setdefault(name, RunningMoments(self._horizon))
        return list(self._moments).index(name)

    def moments(self, judge: int) -> RunningMoments:
        """The moments of a judge's rewards."""
        return list(self._moments.values())[judge]

    @property
    def judges(self) -> int:
        """How many judges there have been."""
        return len(self._moments)

    def normalize(self, values: np.ndarray, judges: np.ndarray) -> np.ndarray:
        """Rewards [T], each in terms of its own judge's [T] moments (`RunningMoments.normalize`)."""
        normalized = np.zeros(len(values), np.float32)
        for judge in np.unique(judges):
            given = judges == judge
            normalized[given] = self.moments(judge).normalize(values[given])
        return normalized

    def get_state(self) -> dict[str, Any]:
        return {name: moments.get_state() for name, moments in self._moments.items()}

    def set_state(self, state: dict[str, Any]) -> None:
        self._moments = {name: RunningMoments(self._horizon) for name in state}
        for name, moments in self._moments.items():
            moments.set_state(state[name])
