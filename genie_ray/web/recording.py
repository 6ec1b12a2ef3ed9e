"""What people play, as a replay dataset: the emulator's frames, one shard an episode.

An episode begins where its player began, which may be in the middle of a game. So the variables of its first frame
hold `before`, the actions from the game's start to there: with them the emulator gets there again. Those of each later
frame hold `by`: who chose the action that led to it.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from genie_ray.replay.dataset import ReplayDataset, count_episodes, index_episodes
from genie_ray.replay.metadata import METADATA_FILE, DatasetMetadata
from genie_ray.replay.schema import Episode, episode_id
from genie_ray.replay.writer import read_metadata, shard_paths, write_metadata, write_shard
from genie_ray.storage.paths import Location, resolve
from genie_ray.web.emulator import GameFrame

PERSON = "person"
BEFORE, BY = "before", "by"


class Recorder:
    """The dataset that is written to; it is whole after each episode. Sessions share it, and later runs add to it.

    Args:
        root: a new directory, or one that was recorded to before.
        source: the dataset that play starts from.

    Raises:
        ValueError: the directory holds something else, or a damaged file; the source does not tell its environment.
    """

    def __init__(self, root: Location, source: ReplayDataset) -> None:
        self.root, self._lock = resolve(root), threading.Lock()
        self._began, self._written = time.time_ns() // 1_000_000, 0  # tell the episodes of several runs apart
        if "env" not in source.metadata.config:
            raise ValueError(
                f"{source.root} does not say in which environment it was recorded: no game can be recorded"
            )
        self._metadata = DatasetMetadata(
            action_names=source.metadata.action_names,
            frame_shape=source.metadata.frame_shape,
            policy=PERSON,
            config={"recorded_by": "genie-ray play", "env": source.metadata.config["env"]},
            counts={},
        )
        if (self.root / METADATA_FILE).is_file():
            there = read_metadata(self.root)
            for field in ("policy", "action_names", "frame_shape", "config"):
                ours, theirs = getattr(self._metadata, field), getattr(there, field)
                if ours != theirs:
                    raise ValueError(f"{self.root} holds another dataset: its {field} is {theirs}, this play's {ours}")
            self._finish()  # a play that was killed has left an episode that is not counted
        elif any(path.is_file() for path in self.root.rglob("*")):
            raise ValueError(f"{self.root} is not empty, and no play was recorded to it: give a new directory")

    @property
    def episodes(self) -> int:
        """Those that the dataset holds."""
        return sum(counts.episodes for counts in self._metadata.counts.values())

    @property
    def steps(self) -> int:
        """Those that the dataset holds."""
        return sum(counts.actions for counts in self._metadata.counts.values())

    def write(self, episode: Episode) -> None:
        """Adds an episode; it gets its id here.

        Raises:
            OSError: the disk is full or not writable.
        """
        with self._lock:
            if not shard_paths(self.root):
                write_metadata(self.root, self._metadata)  # so that even what is killed now can be gone on with
            named = dataclasses.replace(
                episode, episode_id=episode_id(episode.game, PERSON, self._began, self._written)
            )
            write_shard(self.root, episode.game, f"{self._began}-{self._written:06d}", [named])
            self._written += 1
            self._finish()

    def _finish(self) -> None:
        counts = count_episodes(index_episodes(self.root))
        self._metadata = dataclasses.replace(self._metadata, counts=counts)
        write_metadata(self.root, self._metadata)


class Take:
    """An episode as it is played.

    Args:
        recorder: where it is written.
        game: its id.
        before: the actions from the game's start to `first`.
        first: what the game shows at the beginning.
    """

    def __init__(self, recorder: Recorder, game: str, before: Sequence[int], first: GameFrame) -> None:
        self._recorder, self._game = recorder, game
        self._shown = [first]
        self._infos: list[dict[str, Any]] = [{**first.info, BEFORE: list(before)}]
        self._actions: list[int] = []
        self._log_probs: list[float] = []

    def __len__(self) -> int:
        return len(self._actions)

    def add(self, action: int, shown: GameFrame, *, log_prob: float, by: str) -> None:
        """Adds a step; `log_prob` is NaN where a person chose."""
        self._actions.append(action)
        self._log_probs.append(log_prob)
        self._shown.append(shown)
        self._infos.append({**shown.info, BY: by})

    def write(self) -> None:
        """Writes the episode, unless nothing was played. One that the game did not end counts as truncated.

        Raises:
            OSError: the disk is full or not writable.
        """
        if not self._actions:
            return
        episode = played_episode(self._game, "", self._shown, self._actions)
        log_probs = np.array(self._log_probs, np.float32)
        self._recorder.write(dataclasses.replace(episode, action_logp=log_probs, infos=self._infos))


def played_episode(game: str, name: str, shown: Sequence[GameFrame], actions: Sequence[int]) -> Episode:
    """An episode of what the game showed, before the first action and after each. One not ended counts as truncated."""
    terminated = shown[-1].terminated
    return Episode(
        episode_id=name,
        game=game,
        frames=np.stack([each.frame_HWC for each in shown]),
        actions=np.array(actions, np.int8),
        action_logp=None,
        reward_env=np.array([each.reward for each in shown[1:]], np.float32),
        reward_uncertainty=None,
        terminated=terminated,
        truncated=not terminated,
        infos=[each.info for each in shown],
    )


def actions_before(info: dict[str, Any], actions: int) -> list[int]:
    """The actions from the game's start to the first frame of an episode, by that frame's variables.

    Raises:
        ValueError: they are not actions.
    """
    before = info.get(BEFORE, [])
    if not isinstance(before, list) or not all(isinstance(each, int) and 0 <= each < actions for each in before):
        raise ValueError("the episode does not say how it began")
    return before
