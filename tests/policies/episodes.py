"""Episodes whose steps can be told apart."""

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from policies.rewards import LOOKBACK


def fragment(name: str, start: int, steps: int, *, done: bool = False) -> SingleAgentEpisode:
    """A fragment of an episode whose observations and actions show the step."""
    lookback = min(start, LOOKBACK)
    first, stop = start - lookback, start + steps
    return SingleAgentEpisode(
        id_=name,
        observations=[np.int64(t) for t in range(first, stop + 1)],
        actions=[np.int64(t) for t in range(first, stop)],
        rewards=[np.float32(t) for t in range(first, stop)],
        infos=[{}] * (lookback + steps + 1),
        t_started=start,
        len_lookback_buffer=lookback,
        truncated=done,
    ).to_numpy()
