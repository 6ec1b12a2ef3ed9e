"""Acting with a trained policy, one frame at a time, without RLlib's pipelines.

Axis letters: B = 1 game, H W C frame.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule

Act = Callable[[NDArray[np.uint8]], tuple[int, float]]
"""Chooses an action for a frame; returns it with its log-probability."""


def learned(module: RLModule) -> Act:
    """Acts with a trained policy over one episode, from its initial state."""
    state = {key: torch.as_tensor(value)[None] for key, value in module.get_initial_state().items()}
    recurrent = bool(state)

    @torch.no_grad()
    def act(frame: NDArray[np.uint8]) -> tuple[int, float]:
        nonlocal state
        frames_BHWC = torch.from_numpy(frame)[None]
        batch: dict[str, Any] = {Columns.OBS: frames_BHWC}
        if recurrent:
            batch = {Columns.OBS: frames_BHWC[:, None], Columns.STATE_IN: state}
        output = module.forward_exploration(batch, t=0)
        state = output.get(Columns.STATE_OUT, state)
        if Columns.ACTIONS in output:
            return int(output[Columns.ACTIONS]), float(output[Columns.ACTION_LOGP])
        distribution = module.get_exploration_action_dist_cls().from_logits(output[Columns.ACTION_DIST_INPUTS])
        action = distribution.sample()
        return int(action), float(distribution.logp(action))

    return act
