"""The agent's interface to its rewards: fragments of play go out, one reward per action comes back later.

The agent does not know who answers (a world model's service, a feature predictor, a test's function): it is given a
client factory. A *fragment* is a piece of one episode: `frames` uint8 [n + 1, H, W, C] and `actions` int64 [n], where
`actions[i]` leads from `frames[i]` to `frames[i + 1]`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

# A reward looks back on WINDOW_ACTIONS actions: the transition into frame t is judged from frames t−4 and t−3 and
# actions t−4 … t−1 (Savov et al. 2025, eqs. 2–4).
WINDOW_ACTIONS = 4
# So a fragment that continues an episode includes this many earlier steps.
LOOKBACK = WINDOW_ACTIONS - 1


class RewardUnavailableError(ConnectionError):
    """The rewards are unavailable now (service restarting, timeout, network); retrying may help."""


@dataclass(frozen=True, kw_only=True)
class RewardAnswer:
    """Rewards of some fragments' transitions, and what is known about them.

    Element i of a fragment's arrays belongs to the transition that `actions[i]` makes, from `frames[i]` to
    `frames[i + 1]`. It is NaN ("undefined") where a fragment has fewer than WINDOW_ACTIONS actions up to and
    including it.
    """

    rewards: list[np.ndarray]  # float32 [n] per fragment
    version: str  # equal only for rewards from the same judge
    statistics: dict[str, list[np.ndarray]]  # the rewards' components, by name; each as `rewards`
    maps: list[np.ndarray] | None = None  # float32 [n, h, w]: where in frame i + 1 the reward comes from, if asked for
    attempts: int = 1  # requests that it took


class RewardFuture(Protocol):
    """Rewards that were requested."""

    def result(self, timeout_s: float) -> list[np.ndarray]:
        """Waits for the rewards: `RewardAnswer.rewards`.

        Raises:
            RewardUnavailableError: no answer in time, or none possible now.
        """
        ...

    def answer(self, timeout_s: float) -> RewardAnswer:
        """As `result`, but returns the whole answer."""
        ...


class RewardClient(Protocol):
    """Requests rewards."""

    def submit(
        self,
        frames: list[np.ndarray],
        actions: list[np.ndarray],
        *,
        episodes: Sequence[str] | None = None,
        maps: bool = False,
        remember: bool = True,
    ) -> RewardFuture:
        """Requests the rewards of some fragments. Returns at once; the future raises any errors.

        Args:
            frames: uint8 [n + 1, H, W, C] per fragment.
            actions: int64 [n] per fragment.
            episodes: names of the fragments' episodes; needed by rewards that remember an episode. Fragments of an
                episode are submitted in order, except one that is retried while the next is in flight.
            maps: whether the answer includes maps.
            remember: whether a reward that learns, or counts all play, may include the fragments. False for play that
                nobody learns from, or evaluations would change the rewards.
        """
        ...


RewardClientFactory = Callable[[], RewardClient]
