"""Which judge gave each reward in the replay buffer, and how the learner scales it.

A fragment's rewards are marked with their judge's scale. When a new judge takes over, older rewards either stay, each
scaled by its own judge's moments, or everything stored is judged again (`old_rewards`).
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from policies.autoexplore.config import AutoExploreLearningConfig
from policies.autoexplore.normalizer import RewardScale
from policies.replay import SequenceReplayBuffer
from policies.rewards import RewardClientFactory, RewardUnavailableError

logger = logging.getLogger(__name__)

SCALE = "scale"  # column of an episode: index of each reward's scale
REQUEST_STEPS = 500  # per request to judge again; more only if a single episode is longer


class ReplayJudge:
    """Marks rewards with their scales and keeps the scales."""

    def __init__(
        self,
        replay: SequenceReplayBuffer,
        clients: RewardClientFactory,
        learning: AutoExploreLearningConfig,
        timeout_s: float,
    ) -> None:
        self._replay, self._clients, self._timeout_s = replay, clients, timeout_s
        self._asks_again = learning.old_rewards == "ask"
        self.scale = RewardScale(learning.reward_horizon)

    def mark(self, episodes: list[SingleAgentEpisode], version: str, games: Sequence[str] | None = None) -> None:
        """Marks new rewards and adds them to their judge's scales; `games`: each episode's, if there are several."""
        judges = self.scale.judges
        self._mark(episodes, version, games or [""] * len(episodes))
        if self._asks_again and 0 < judges < self.scale.judges:
            try:
                self._ask_again()
            except RewardUnavailableError as error:
                logger.warning("not all stored rewards were judged again: %s", error)

    def _ask_again(self) -> None:
        client = self._clients()
        for episodes in self._requests():
            future = client.submit(
                [np.asarray(episode.observations.data) for episode in episodes],
                [np.asarray(episode.actions.data, np.int64) for episode in episodes],
                episodes=[episode.id_ for episode in episodes],
            )
            answer = future.answer(self._timeout_s)
            for episode, rewards in zip(episodes, answer.rewards, strict=True):
                episode.rewards = InfiniteLookbackBuffer(
                    np.asarray(rewards, np.float32), lookback=episode.actions.lookback
                )
            games = [self.scale.game(episode.extra_model_outputs[SCALE].data[-1]) for episode in episodes]
            self._mark(episodes, answer.version, games)

    def _mark(self, episodes: list[SingleAgentEpisode], version: str, games: Sequence[str]) -> None:
        of_game: dict[str, list[SingleAgentEpisode]] = {}
        for episode, game in zip(episodes, games, strict=True):
            of_game.setdefault(game, []).append(episode)
        for game, played in of_game.items():
            scale = self.scale.add(version, [episode.get_rewards() for episode in played], game)
            for episode in played:
                numbers = np.full(len(episode.actions.data), scale, np.int32)
                episode.extra_model_outputs[SCALE] = InfiniteLookbackBuffer(numbers, lookback=episode.actions.lookback)

    def _requests(self) -> Iterator[list[SingleAgentEpisode]]:
        """The stored episodes, in batches of one request each."""
        batch: list[SingleAgentEpisode] = []
        for episode in self._replay.episodes:
            if batch and sum(map(len, batch)) + len(episode) > REQUEST_STEPS:
                yield batch
                batch = []
            batch.append(episode)
        if batch:
            yield batch

    def get_state(self) -> dict[str, Any]:
        return self.scale.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        self.scale.set_state(state)
