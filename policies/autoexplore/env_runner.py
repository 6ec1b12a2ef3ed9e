"""Playing with delayed rewards: fragments are judged elsewhere while the environments step on.

Each `sample()` plays one fragment in all environments, asks for its rewards in one request and hands on the *previous*
fragment, whose rewards have arrived meanwhile. The learner sees these rewards only: the game's own and its info
variables are recorded as metrics and left out of what is handed on.
"""

import copy
import logging
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from policies.rewards import RewardClient, RewardFuture, RewardUnavailableError

logger = logging.getLogger(__name__)

RETRY_PAUSE_S = 1.0


@dataclass(kw_only=True)
class _Fragment:
    """Pieces of episodes that wait for their rewards."""

    episodes: list[SingleAgentEpisode]
    frames: list[np.ndarray]
    actions: list[np.ndarray]
    future: RewardFuture


class CuriosityEnvRunner(SingleAgentEnvRunner):
    """RLlib's environment runner with rewards from a RewardClient."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._client: RewardClient = self.config.reward_client_factory()
        self._waiting: _Fragment | None = None
        self._gaps: Counter[str] = Counter()  # dropped fragments per unfinished episode
        self.dropped_in_a_row = 0

    def sample(self, **kwargs: Any) -> list[SingleAgentEpisode]:
        """Plays a fragment; returns the previous one with its rewards (nothing at first or if it was dropped)."""
        episodes = super().sample(**kwargs)
        arriving, self._waiting = self._waiting, self._submit(episodes)
        return [] if arriving is None else self._receive(arriving)

    def _submit(self, episodes: list[SingleAgentEpisode]) -> _Fragment:
        # `data` includes the lookback steps, so windows reach back over the fragment's start.
        frames = [episode.observations.data for episode in episodes]
        actions = [np.asarray(episode.actions.data, np.int64) for episode in episodes]
        future = self._client.submit(frames, actions)
        return _Fragment(episodes=episodes, frames=frames, actions=actions, future=future)

    def _receive(self, fragment: _Fragment) -> list[SingleAgentEpisode]:
        start = time.perf_counter()
        rewards = self._await(fragment)
        self.metrics.log_value("reward_wait_s", time.perf_counter() - start, reduce="sum")
        handed_on = []
        if rewards is None:
            self.metrics.log_value("fragments_dropped", 1, reduce="lifetime_sum")
            self._gaps.update(episode.id_ for episode in fragment.episodes)
            self.dropped_in_a_row += 1
        else:
            self.dropped_in_a_row = 0
            handed_on = [
                self._with_rewards(episode, reward) for episode, reward in zip(fragment.episodes, rewards, strict=True)
            ]
        for episode in fragment.episodes:
            if episode.is_done:
                self._gaps.pop(episode.id_, None)
        return handed_on

    def _await(self, fragment: _Fragment) -> list[np.ndarray] | None:
        """The rewards, or None if they could not be had in `reward_attempts` attempts."""
        for attempt in range(self.config.reward_attempts):
            if attempt:
                time.sleep(RETRY_PAUSE_S)
                fragment.future = self._client.submit(fragment.frames, fragment.actions)
            try:
                return fragment.future.result(self.config.reward_timeout_s)
            except RewardUnavailableError as error:
                logger.warning("no rewards (attempt %d of %d): %s", attempt + 1, self.config.reward_attempts, error)
        return None

    def _with_rewards(self, episode: SingleAgentEpisode, rewards: np.ndarray) -> SingleAgentEpisode:
        """A copy that shares the frames; the original keeps the game's rewards, for the metrics."""
        assert len(rewards) == len(episode.actions.data), (len(rewards), episode)
        judged = copy.copy(episode)
        judged.rewards = InfiniteLookbackBuffer(np.asarray(rewards, np.float32), lookback=episode.actions.lookback)
        judged.infos = InfiniteLookbackBuffer([{}] * len(episode.infos.data), lookback=episode.infos.lookback)
        # What follows a dropped fragment cannot be joined to what preceded it: it counts as an episode of its own.
        if self._gaps[episode.id_]:
            judged.id_ = f"{episode.id_}+{self._gaps[episode.id_]}"
        return judged
