"""Replay of sequences: fragments of play are joined into episodes, from which sequences are drawn.

A sequence is up to `length` steps to learn from, after up to `burn_in` steps that only bring the LSTM's stored state up
to date (Kapturowski et al. 2019, "stored state" and "burn-in"). At an episode's start the state is known, so no burn-in
is needed there, and an episode's first steps are learned from as often as all others.
"""

import sys
from typing import Any

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

LEARNED = "learned"  # column of a sequence: False on the steps of its burn-in


class SequenceReplayBuffer(EpisodeReplayBuffer):
    """RLlib's episode buffer; evicts the oldest episodes when it holds more than `limit` steps.

    An evicted episode may still be growing, since a slow runner's episodes are the oldest. Its later steps are stored
    as an episode that begins there.
    """

    _indices: list[tuple[int, int]]  # RLlib's, of all stored steps

    def __init__(self, *, capacity: int, seed: int | None) -> None:
        super().__init__(capacity=sys.maxsize)  # RLlib itself cannot evict an episode that just grew
        self.limit = capacity
        self.rng = np.random.default_rng(seed)

    def add(self, episodes: list[SingleAgentEpisode]) -> None:
        """Appends fragments to their episodes; evicts the oldest episodes."""
        super().add(episodes)
        evicted = set()
        while self._num_timesteps > self.limit and len(self.episodes) > 1:
            oldest = self.episodes.popleft()
            evicted.add(self.episode_id_to_index.pop(oldest.id_))
            self._num_timesteps -= len(oldest)
        if evicted:
            self._num_episodes_evicted += len(evicted)
            self._indices = [index for index in self._indices if index[0] not in evicted]

    def sample_sequences(
        self, count: int, *, length: int, burn_in: int, newest_steps: int = 0, newest_share: float = 0.0
    ) -> list[SingleAgentEpisode]:
        """Draws sequences, with replacement, so that every stored step is learned from equally often.

        So a sequence may also begin up to `length` − 1 steps before its episode, of which it then lacks as many.

        Args:
            count: of sequences.
            length: steps to learn from, at most.
            burn_in: steps before them, at most.
            newest_steps: how many of the steps stored last count as new.
            newest_share: of the sequences that begin at a new step, drawn uniformly.

        Returns:
            `count` slices of episodes, which share their arrays with the buffer, with a column `LEARNED`. One step of
            lookback holds the LSTM state before the first step. A sequence is shorter where its stored episode ends.
        """
        new = round(count * newest_share) if newest_steps else 0
        begins = np.cumsum([len(episode) + length - 1 for episode in self.episodes])
        drawn = self.rng.integers(begins[-1], size=count - new)
        numbers = np.searchsorted(begins, drawn, side="right")
        firsts = drawn - begins[numbers] + [len(self.episodes[number]) for number in numbers]
        positions = list(zip(numbers.tolist(), firsts.tolist(), strict=True))
        for index in self.rng.integers(max(len(self._indices) - newest_steps, 0), len(self._indices), size=new):
            number, first = self._indices[index]
            positions.append((number - self._num_episodes_evicted, first))
        return [self._sequence(*position, length=length, burn_in=burn_in) for position in positions]

    def _sequence(self, number: int, first: int, *, length: int, burn_in: int) -> SingleAgentEpisode:
        episode = self.episodes[number]
        start, stop = max(first - burn_in, 0), min(first + length, len(episode))
        sequence = episode.slice(slice(start, stop), len_lookback_buffer=1)
        lookback = sequence.actions.lookback
        learned = np.arange(start - lookback, stop) >= first
        sequence.extra_model_outputs[LEARNED] = InfiniteLookbackBuffer(learned, lookback=lookback)
        return sequence

    def get_state(self) -> dict[str, Any]:
        return super().get_state() | {"rng": self.rng.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        self.episodes.clear()  # RLlib only fills an empty buffer
        super().set_state(state)
        self.rng.bit_generator.state = state["rng"]
