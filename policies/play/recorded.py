"""Play as it is stored: each step of a piece of an episode, whoever decided how often."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode


@dataclass(frozen=True, kw_only=True)
class RecordedPlay:
    """n consecutive steps of an episode, from its step `first` on."""

    episode: str
    first: int
    frames: np.ndarray  # uint8 [n + 1, H, W, C]
    actions: np.ndarray  # int8 [n]
    log_probs: np.ndarray  # float32 [n], of the actions under the policy that acted
    game_rewards: np.ndarray  # float32 [n]
    rewards: np.ndarray  # float32 [n], the judge's; NaN where undefined or not asked for
    infos: list[dict[str, Any]]  # of each frame
    terminated: bool
    truncated: bool  # ended by a limit of steps

    def __len__(self) -> int:
        return len(self.actions)


def record_steps(episode: SingleAgentEpisode, rewards: np.ndarray) -> RecordedPlay:
    """A piece of an episode in which each step is a decision.

    Args:
        rewards: float32, the judge's, of the piece and its lookback.
    """
    steps = len(episode)
    return RecordedPlay(
        episode=episode.id_,
        first=episode.t_started,
        frames=np.asarray(episode.get_observations()),
        actions=np.asarray(episode.get_actions(), np.int8),
        log_probs=np.asarray(episode.get_extra_model_outputs(Columns.ACTION_LOGP), np.float32),
        game_rewards=np.asarray(episode.get_rewards(), np.float32),
        rewards=np.asarray(rewards[len(rewards) - steps :], np.float32),
        infos=list(episode.get_infos()),
        terminated=episode.is_terminated,
        truncated=episode.is_truncated,
    )
