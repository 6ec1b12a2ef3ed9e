"""Acting with a trained policy, one frame at a time, without RLlib's pipelines.

Axis letters: B = 1 game, H W C frame.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModule

Act = Callable[[NDArray[np.uint8], float], tuple[int, float]]
"""Chooses an action for a frame and the game's reward that led to it; returns it with its log-probability."""


@runtime_checkable
class StartsEpisodes(Protocol):
    """A policy with its own way to play an episode, e.g. since it sees more than frames."""

    def start_episode(self) -> Act: ...


def learned(module: RLModule) -> Act:
    """Acts with a trained policy over one episode, from its initial state.

    A policy may decide only every `module.hold` steps, and see the last `module.shown_frames` frames
    (`policies.play.held`). In between, its action is certain.
    """
    if isinstance(module, StartsEpisodes):
        return module.start_episode()
    hold, shown = getattr(module, "hold", 1), getattr(module, "shown_frames", 1)
    state = {key: torch.as_tensor(value)[None] for key, value in module.get_initial_state().items()}
    recurrent = bool(state)
    frames: deque[NDArray[np.uint8]] = deque(maxlen=shown)
    step, held = 0, 0

    @torch.no_grad()
    def decide() -> tuple[int, float]:
        nonlocal state
        frames_BHWC = torch.from_numpy(np.concatenate(frames, axis=-1))[None]
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

    def act(frame: NDArray[np.uint8], reward: float) -> tuple[int, float]:
        nonlocal step, held
        frames.extend([frame] * (1 if frames else shown))
        log_prob = 0.0
        if step % hold == 0:
            held, log_prob = decide()
        step += 1
        return held, log_prob

    return act
