"""Prioritised replay of sequences with stored state (Kapturowski et al. 2019), as the batches that the learner takes.

A sequence begins on a grid of steps of its episode, after burn-in steps that only bring the stored state up to date. An
episode's first sequence has none: its state is known. The last one of an episode may be shorter.

Axis letters: B sequences, K burn-in steps, T learned steps, S = T + 1 frames (the last one only bootstraps).
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns

from policies.agent57.config import Agent57Learning
from policies.agent57.env_runner import Agent57Play
from policies.agent57.module import ARM, LAST_ACTION, LAST_INTRINSIC, LAST_REWARD, MEMORY
from policies.agent57.values import priorities

NUMBER, WEIGHT, BURNED, INTRINSIC_REWARDS = "number", "weight", "burned", "intrinsic_rewards"
PER_STEP = ("actions", "log_probs", "game_rewards", "rewards", "memory", "errors")


@dataclass
class StoredEpisode:
    """The stored part of an episode, which may still grow."""

    begin: int  # number of its first stored step
    arm: int
    columns: dict[str, np.ndarray]  # with room for more
    steps: int = 0
    sequences: int = 0  # on the grid, so far
    terminated: bool = False
    done: bool = False
    numbers: list[int] = field(default_factory=list)  # of its sequences

    def append(self, play: Agent57Play) -> None:
        """Adds the next piece."""
        frames = play.frames if not self.columns else play.frames[1:]
        self._extend("frames", frames, self.steps + 1 if self.columns else 0)
        for column in PER_STEP:
            self._extend(column, getattr(play, column), self.steps)
        self.steps += len(play)
        self.terminated, self.done = play.terminated, play.terminated or play.truncated
        if self.done:
            self.columns = {
                name: values[: self.steps + (name == "frames")].copy() for name, values in self.columns.items()
            }

    def _extend(self, column: str, values: np.ndarray, at: int) -> None:
        stored, end = self.columns.get(column), at + len(values)
        if stored is None or len(stored) < end:
            larger = np.zeros((max(end, 2 * len(stored) if stored is not None else 0), *values.shape[1:]), values.dtype)
            if stored is not None:
                larger[:at] = stored[:at]
            self.columns[column] = stored = larger
        stored[at:end] = values


class PrioritizedSequences:
    """Holds at most `capacity` steps, of whole episodes; the oldest go first."""

    def __init__(self, settings: Agent57Learning, seed: int | None) -> None:
        self._settings = settings
        self._rng = np.random.default_rng(seed)
        self._episodes: dict[str, StoredEpisode] = {}  # oldest first
        self._entries: dict[int, tuple[str, int]] = {}  # number → episode and first step within its stored part
        self._priorities: dict[int, float] = {}
        self._next = 0
        self._highest = 1.0
        self.steps = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, plays: list[Agent57Play]) -> None:
        """Appends pieces to their episodes; the errors of acting are a new sequence's first priority."""
        for play in plays:
            episode = self._episodes.get(play.episode)
            if episode is None:
                episode = self._episodes[play.episode] = StoredEpisode(begin=play.first, arm=play.arm, columns={})
            assert play.first == episode.begin + episode.steps, (play.first, episode.begin, episode.steps)
            episode.append(play)
            self.steps += len(play)
            self._index(play.episode, episode)
        while self.steps > self._settings.replay_capacity and len(self._episodes) > 1:
            name = next(iter(self._episodes))
            evicted = self._episodes.pop(name)
            self.steps -= evicted.steps
            for number in evicted.numbers:
                del self._entries[number], self._priorities[number]

    def sample(self) -> dict[str, np.ndarray]:
        """Draws a batch, with replacement, in proportion to priorities raised to their exponent."""
        settings = self._settings
        numbers = np.fromiter(self._entries, np.int64, len(self._entries))
        weights = np.fromiter(self._priorities.values(), np.float64, len(numbers)) ** settings.priority_exponent
        sums = np.cumsum(weights)
        drawn = np.searchsorted(sums, self._rng.random(settings.batch_size) * sums[-1], side="right")
        importance = (weights[drawn] / sums[-1] * len(numbers)) ** -settings.importance_exponent
        rows = [self._row(int(number)) for number in numbers[drawn]]
        batch = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
        return batch | {NUMBER: numbers[drawn], WEIGHT: (importance / importance.max()).astype(np.float32)}

    def update_priorities(self, numbers: np.ndarray, priorities: np.ndarray) -> None:
        """Sets the priorities of sequences; those evicted meanwhile are left out."""
        for number, priority in zip(numbers.tolist(), priorities.tolist(), strict=True):
            if number in self._priorities:
                self._priorities[number] = priority + 1e-6
                self._highest = max(self._highest, priority)

    def _index(self, name: str, episode: StoredEpisode) -> None:
        """Makes entries of the sequences that are complete now."""
        length, period = self._settings.sequence_length, self._settings.period
        while True:
            start = episode.sequences * period
            complete = start + length <= episode.steps
            # The last one: there are steps that the one before does not have.
            last = episode.done and start < episode.steps and (not start or start - period + length < episode.steps)
            if not (complete or last):
                return
            episode.sequences += 1
            # The step before an evicted part is unknown, and the burnt-in frames of what follows reach back to it.
            if start > self._settings.burn_in or not episode.begin:
                self._entries[self._next] = (name, start)
                self._priorities[self._next] = self._first_priority(episode.columns["errors"][start : start + length])
                episode.numbers.append(self._next)
                self._next += 1

    def _first_priority(self, errors: np.ndarray) -> float:
        """That of the known errors; without any, the highest so far."""
        known = torch.from_numpy(errors[~np.isnan(errors)])[None]
        if not known.shape[1]:
            return self._highest
        found = priorities(known, torch.ones_like(known, dtype=torch.bool), self._settings.largest_share).item() + 1e-6
        self._highest = max(self._highest, found)
        return found

    def _row(self, number: int) -> dict[str, Any]:
        name, start = self._entries[number]
        episode, settings = self._episodes[name], self._settings
        columns, before = episode.columns, settings.burn_in if start else 0
        first, stop = start - before, min(start + settings.sequence_length, episode.steps)
        pad, width = settings.burn_in - before, settings.burn_in + settings.sequence_length + 1

        def framed(values: np.ndarray, fill: float = 0) -> np.ndarray:
            """As [K + S], with padding on both sides."""
            row = np.full((width, *values.shape[1:]), fill, values.dtype)
            row[pad : pad + len(values)] = values
            return row

        def last(column: str, fill: float) -> np.ndarray:
            """The step before each frame."""
            values = columns[column][max(first - 1, 0) : stop]
            return framed(values if first else np.concatenate([np.full(1, fill, values.dtype), values]), fill)

        def learned(values: np.ndarray) -> np.ndarray:
            """As [T], with padding at the end."""
            row = np.zeros((settings.sequence_length, *values.shape[1:]), values.dtype)
            row[: stop - start] = values[start:stop]
            return row

        ends = np.zeros(episode.steps, bool)
        ends[-1] = episode.done and episode.terminated
        return {
            Columns.OBS: framed(columns["frames"][first : stop + 1]),
            LAST_ACTION: last("actions", -1).astype(np.int64),
            LAST_REWARD: last("game_rewards", 0),
            LAST_INTRINSIC: last("rewards", 0),
            ARM: np.full(width, episode.arm),
            MEMORY: columns["memory"][first],
            BURNED: np.array(before > 0),
            Columns.ACTIONS: learned(columns["actions"]).astype(np.int64),
            Columns.ACTION_LOGP: learned(columns["log_probs"]),
            Columns.REWARDS: learned(columns["game_rewards"]),
            INTRINSIC_REWARDS: learned(columns["rewards"]),
            Columns.TERMINATEDS: learned(ends),
            Columns.LOSS_MASK: learned(np.ones(episode.steps, bool)),
        }

    def get_state(self) -> dict[str, Any]:
        return {
            "episodes": self._episodes,
            "entries": self._entries,
            "priorities": self._priorities,
            "next": self._next,
            "highest": self._highest,
            "steps": self.steps,
            "rng": self._rng.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self._episodes, self._entries, self._priorities = state["episodes"], state["entries"], state["priorities"]
        self._next, self._highest, self.steps = state["next"], state["highest"], state["steps"]
        self._rng.bit_generator.state = state["rng"]


def bytes_of_a_step(frame_shape: tuple[int, ...], state_size: int) -> int:
    """Memory that replay takes for a step: its frame, its state, and some numbers."""
    return int(np.prod(frame_shape)) + 2 * state_size + 20
