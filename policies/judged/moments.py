"""Statistics of rewards: running mean and spread, and summaries for logs.

Moments are merged batch by batch (Chan, Golub & LeVeque 1979); beyond a horizon old ones fade, since rewards drift as
policy and judge change.
"""

from typing import Any

import numpy as np

# Smaller differences between rewards are rounding errors, not signal.
MIN_STD = 1e-5


def reward_figures(rewards: np.ndarray) -> dict[str, float]:
    """Summary statistics of rewards; empty if all are undefined."""
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
        horizon: number of values from which on old ones fade geometrically, ≥ 1.
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
        """Adds new values; NaNs are ignored."""
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
        """(values − mean) / std as float32; NaN becomes 0, which is neutral."""
        return np.nan_to_num((values - self.mean) / self.std, nan=0.0).astype(np.float32)

    def get_state(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def set_state(self, state: dict[str, Any]) -> None:
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]
