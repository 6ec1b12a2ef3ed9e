"""What an agent asks for its rewards: fragments of play go out, one reward per action comes back later.

The agent does not know who answers (a world model's service, a feature predictor, a test's function): it is handed a
factory of clients. A *fragment* is a piece of one episode: `frames` uint8 [n + 1, H, W, C] and `actions` int64 [n],
where `actions[i]` leads from `frames[i]` to `frames[i + 1]`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

# A reward looks back on WINDOW_ACTIONS actions: the transition into frame t is judged from frames t−4 and t−3 and
# actions t−4 … t−1 (Savov et al. 2025, eqs. 2–4).
WINDOW_ACTIONS = 4
# So a fragment that continues an episode takes this many earlier steps along.
LOOKBACK = WINDOW_ACTIONS - 1


class RewardUnavailableError(ConnectionError):
    """The rewards could not be had now (service restarting, timeout, network): asking again may help."""


@dataclass(frozen=True, kw_only=True)
class RewardAnswer:
    """What is known about some fragments' transitions.

    Element i of a fragment's arrays belongs to the transition that `actions[i]` makes, from `frames[i]` to
    `frames[i + 1]`. It is NaN ("undefined") where a fragment has fewer than WINDOW_ACTIONS actions up to and
    including it.
    """

    rewards: list[np.ndarray]  # float32 [n] per fragment
    version: str  # the same only for rewards that one and the same judge gave
    statistics: dict[str, list[np.ndarray]]  # what the rewards are made of, by name; each as `rewards`
    maps: list[np.ndarray] | None = None  # float32 [n, h, w]: where in frame i + 1 the reward comes from, if asked for
    attempts: int = 1  # times that it was asked for


class RewardFuture(Protocol):
    """Rewards on their way."""

    def result(self, timeout_s: float) -> list[np.ndarray]:
        """Waits for the rewards: `RewardAnswer.rewards`.

        Raises:
            RewardUnavailableError: no answer in time, or none possible now.
        """
        ...

    def answer(self, timeout_s: float) -> RewardAnswer:
        """As `result`, with all that is known."""
        ...


class RewardClient(Protocol):
    """A way to ask for rewards."""

    def submit(
        self,
        frames: list[np.ndarray],
        actions: list[np.ndarray],
        *,
        episodes: Sequence[str] | None = None,
        maps: bool = False,
        remember: bool = True,
    ) -> RewardFuture:
        """Asks for the rewards of some fragments. Returns at once; what goes wrong is raised by the future.

        Args:
            frames: uint8 [n + 1, H, W, C] per fragment.
            actions: int64 [n] per fragment.
            episodes: the fragments' episodes, any names; needed by rewards that remember an episode. Its fragments
                are asked about in their order, but for one that is asked again while the next is under way.
            maps: whether the answer shall have maps.
            remember: whether a reward that learns, or counts all play, may take the fragments in. Not so for play that
                nobody learns from, or evaluations would change what is paid.
        """
        ...


RewardClientFactory = Callable[[], RewardClient]
