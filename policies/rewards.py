"""What an agent asks for its rewards: fragments of play go out, one reward per action comes back later.

The agent does not know who answers (a world model's service, a feature predictor, a test's function): it is handed a
factory of clients. A *fragment* is a piece of one episode: `frames` uint8 [n + 1, H, W, C] and `actions` int64 [n],
where `actions[i]` leads from `frames[i]` to `frames[i + 1]`.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

# A reward looks back on WINDOW_ACTIONS actions: the transition into frame t is judged from frames t−4 and t−3 and
# actions t−4 … t−1 (Savov et al. 2025, eqs. 2–4).
WINDOW_ACTIONS = 4
# So a fragment that continues an episode takes this many earlier steps along.
LOOKBACK = WINDOW_ACTIONS - 1


class RewardUnavailableError(RuntimeError):
    """The rewards could not be had now (service restarting, timeout, network): asking again may help."""


class RewardFuture(Protocol):
    """Rewards on their way."""

    def result(self, timeout_s: float) -> list[np.ndarray]:
        """Waits for the rewards: one float32 array [n] per fragment.

        Element i belongs to the transition that `actions[i]` makes, from `frames[i]` to `frames[i + 1]`. It is NaN
        ("undefined") where a fragment has fewer than WINDOW_ACTIONS actions up to and including it.

        Raises:
            RewardUnavailableError: no answer in time, or none possible now.
        """
        ...


class RewardClient(Protocol):
    """A way to ask for rewards."""

    def submit(self, frames: list[np.ndarray], actions: list[np.ndarray]) -> RewardFuture:
        """Asks for the rewards of some fragments. Returns at once; what goes wrong is raised by `result`."""
        ...


RewardClientFactory = Callable[[], RewardClient]
