"""Scaling of rewards by the running spread of their discounted returns (RND, Burda et al. 2018, section 2.4).

The mean that is subtracted is that of the play which is learned from together. A running mean lags behind a reward that
runs out: all rewards would be below it, and what ends soon would look good.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from policies.judged.moments import RunningMoments


class ReturnScale:
    """Running spread of returns; mean of the latest rewards.

    Args:
        gamma: discount per decision.
        horizon: number of returns from which on old ones fade.
        centred: whether the mean of the rewards given together is subtracted. Where returns go on beyond episodes it
            must be, or the value network would have to learn the sum of a hundred average rewards, beside which the
            differences vanish.
    """

    def __init__(self, *, gamma: float, horizon: int, centred: bool) -> None:
        self._gamma, self._centred = gamma, centred
        self.mean = 0.0  # of the latest rewards
        self._returns = RunningMoments(horizon)
        self._running: dict[str, float] = {}  # return so far of each unfinished episode

    def scale(
        self,
        names: Sequence[str],
        rewards: Sequence[np.ndarray],
        done: Sequence[bool],
        games: Sequence[str] | None = None,
    ) -> list[np.ndarray]:
        """Adds the rewards of an epoch and returns them scaled; an undefined one becomes an average one.

        Args:
            names: of the episodes that the rewards belong to, each at most once.
            rewards: float32 [n] each, in the order of play.
            done: whether the episode ends with them.
            games: that the episodes are of, each centred by its own mean; by default one.
        """
        defined = [values[~np.isnan(values)] for values in rewards]
        self.mean = _mean(defined, self.mean)
        by_game: dict[str, list[np.ndarray]] = defaultdict(list)
        games = games or [""] * len(names)
        for game, values in zip(games, defined, strict=True):
            by_game[game].append(values)
        means = {game: _mean(values, self.mean) for game, values in by_game.items()}
        known = [
            np.nan_to_num(values, nan=means[game]) - means[game] * self._centred
            for game, values in zip(games, rewards, strict=True)
        ]
        running: dict[str, float] = {}
        all_returns = []
        for name, values, ends in zip(names, known, done, strict=True):
            returns = np.empty(len(values))
            value = self._running.get(name, 0.0)
            for i, reward in enumerate(values):
                value = returns[i] = self._gamma * value + reward
            all_returns.append(returns)
            if not ends:
                running[name] = value
        self._running = running
        self._returns.update(np.concatenate(all_returns))
        return [(values / self._returns.std).astype(np.float32) for values in known]

    @property
    def std(self) -> float:
        """Running spread of the returns."""
        return self._returns.std

    def get_state(self) -> dict[str, Any]:
        return {"mean": self.mean, "returns": self._returns.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Restores mean and moments; episodes start over."""
        self.mean = state["mean"]
        self._returns.set_state(state["returns"])


def _mean(parts: Sequence[np.ndarray], otherwise: float) -> float:
    """The mean of all values; `otherwise` if there are none."""
    return float(np.concatenate(parts).mean(dtype=np.float64)) if any(map(len, parts)) else otherwise
