"""What the page shows of a replay dataset: lists, episodes, frames as PNG, and coverage as it is counted.

Axis letters: T actions of an episode, N frames, H W C pixels, M windows.
"""

from __future__ import annotations

import secrets
import threading
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from genie_ray.base.errors import one_line
from genie_ray.replay.coverage import Distinct, cells, place_of
from genie_ray.replay.dataset import EpisodeRef, ReplayDataset, read_row_group
from genie_ray.replay.schema import policy_of
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.judges import UncertaintyJudge
from genie_ray.rewards.windows import unfold
from world_model.genie import GenieReduxG

MOST_LISTED = 100  # episodes at a time
MOST_FRAMES = 100  # in a picture
MOST_WINDOWS = 64  # judged at a time
CURVE_POINTS = 400
DECODED = 4  # episodes whose frames are kept


class BrowsedDataset:
    """A dataset as the page asks for it. All methods may be called from any thread.

    Args:
        name: how the page calls it.
        dataset: what it shows.
    """

    def __init__(self, name: str, dataset: ReplayDataset) -> None:
        self.name, self.dataset = name, dataset
        self._version = secrets.token_hex(4)  # so that a browser keeps no pictures of another dataset
        self._by_id = {ref.episode_id: ref for ref in dataset.episodes}
        self._frames = lru_cache(maxsize=DECODED)(lambda ref: dataset.read_frames_and_actions(ref)[0])
        self._coverage: dict[str, Counting] = {}
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """What it holds, as plain JSON."""
        policies: dict[str, set[str]] = defaultdict(set)
        for ref in self.dataset.episodes:
            policies[ref.game].add(policy_of(ref.episode_id))
        metadata = self.dataset.metadata
        return {
            "name": self.name,
            "version": self._version,
            "actions": list(metadata.action_names),
            "frame_shape": list(metadata.frame_shape),
            "games": {
                game: {"episodes": counts.episodes, "steps": counts.actions, "policies": sorted(policies[game])}
                for game, counts in metadata.counts.items()
            },
        }

    def page_of(self, game: str, policy: str, first: int, count: int) -> dict[str, Any]:
        """Some of a game's episodes, with their returns; policy "": any.

        Raises:
            ValueError: a damaged file.
        """
        refs = [ref for ref in self._of(game) if policy in ("", policy_of(ref.episode_id))]
        episodes = []
        for ref in refs[first : first + min(count, MOST_LISTED)]:
            columns = read_row_group(ref.path, ref.row_group, ["reward_env", "terminated"])
            rewards = columns["reward_env"].to_numpy()[:-1]
            episodes.append(
                {
                    "id": ref.episode_id,
                    "steps": ref.length,
                    "return": float(np.nansum(rewards.astype(np.float64))),
                    "terminated": columns["terminated"][-1].as_py(),
                }
            )
        return {"total": len(refs), "first": first, "episodes": episodes}

    def episode(self, episode_id: str) -> dict[str, Any]:
        """Everything about an episode but its frames; a value that is not there is null.

        Raises:
            ValueError: no such episode, or a damaged file.
        """
        ref = self.find(episode_id)
        names = ["action", "reward_env", "reward_uncertainty", "terminated", "truncated"]
        columns = read_row_group(ref.path, ref.row_group, names)
        given = columns["reward_uncertainty"]
        return {
            "id": ref.episode_id,
            "game": ref.game,
            "actions": columns["action"].to_pylist()[:-1],
            "rewards": columns["reward_env"].to_pylist()[:-1],
            "given": None if given.null_count == len(given) else given.to_pylist()[:-1],
            "terminated": columns["terminated"][-1].as_py(),
            "truncated": columns["truncated"][-1].as_py(),
        }

    def picture(self, episode_id: str, first: int, last: int, count: int) -> bytes:
        """Frames side by side as PNG: `count` of them, evenly spread from `first` to `last`.

        Raises:
            ValueError: no such episode or frames, or a damaged file.
        """
        ref = self.find(episode_id)
        if not 0 <= first <= last <= ref.length or not 1 <= count <= MOST_FRAMES:
            raise ValueError(
                f"frames {first} to {last}, {count} of them; allowed in {episode_id}: 0 to {ref.length}, 1 to "
                f"{MOST_FRAMES}"
            )
        steps = np.linspace(first, last, count).round().astype(int)
        frames_NHWC: NDArray[np.uint8] = self._frames(ref)[steps]
        wide = np.concatenate(list(frames_NHWC[..., ::-1]), axis=1)  # OpenCV's order is blue, green, red
        return cv2.imencode(".png", wide, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()

    def coverage(self, game: str) -> dict[str, Any]:
        """A game's cells and places along its steps, as far as they are counted; counting begins with the first call.

        Raises:
            ValueError: no such game.
        """
        with self._lock:
            if game not in self._coverage:
                self._coverage[game] = Counting(self.dataset, self._of(game))
            return self._coverage[game].so_far()

    def find(self, episode_id: str) -> EpisodeRef:
        """The episode of this id.

        Raises:
            ValueError: there is none.
        """
        if episode_id not in self._by_id:
            raise ValueError(f"episode is {episode_id!r}; allowed: one of the {len(self._by_id)} of {self.name}")
        return self._by_id[episode_id]

    def _of(self, game: str) -> list[EpisodeRef]:
        refs = [ref for ref in self.dataset.episodes if ref.game == game]
        if not refs:
            raise ValueError(f"game is {game!r}; allowed: {', '.join(self.dataset.metadata.counts)}")
        return refs


class Counting:
    """Counts distinct cells and places along the steps of some episodes, in a thread of its own."""

    def __init__(self, dataset: ReplayDataset, refs: Sequence[EpisodeRef]) -> None:
        self._dataset, self._refs = dataset, refs
        self._done, self._error = 0, ""
        self._cells: list[int] = []  # after each step
        self._places: list[int] = []
        threading.Thread(target=self._count, daemon=True).start()

    def so_far(self) -> dict[str, Any]:
        """At up to 400 of the steps counted so far: their numbers, cells and places (null: the game tells none)."""
        places, reached = self._places, min(len(self._cells), len(self._places))
        steps = np.unique(np.linspace(1, reached, min(reached, CURVE_POINTS)).round().astype(int)).tolist()
        tells = bool(reached and places[reached - 1])
        return {
            "episodes": self._done,
            "of": len(self._refs),
            "steps": steps,
            "cells": [self._cells[step - 1] for step in steps],
            "places": [places[step - 1] for step in steps] if tells else None,
            "error": self._error,
        }

    def _count(self) -> None:
        seen_cells, seen_places = Distinct(), Distinct()
        try:
            for ref in self._refs:
                episode = self._dataset.read(ref)
                self._cells += seen_cells.add(cells(episode.frames).tolist())[1:]
                self._places += seen_places.add(map(place_of, episode.infos))[1:]
                self._done += 1
        except (ValueError, OSError) as error:  # a damaged file, or a disk that is gone: the page says so
            self._error = one_line(error)


class Unsure:
    """How unsure a world model is along an episode: the reward for exploring (Savov et al. 2025, eqs. 2–4).

    Args:
        model: shared with others.
        lock: held while it computes.
        config: how it judges.
    """

    def __init__(self, model: GenieReduxG, lock: threading.Lock, config: RewardConfig | None = None) -> None:
        self._judge, self._lock = UncertaintyJudge(model, config or RewardConfig(), version=""), lock

    def along(self, browsed: BrowsedDataset, episode_id: str, first: int, count: int) -> dict[str, Any]:
        """The values of some windows of an episode; window m is of the transition into frame m + 4.

        Returns:
            `values` of windows `first`, `first` + 1, …, fewer than `count` at the end; `total` windows.

        Raises:
            ValueError: no such episode, or a damaged file.
        """
        frames, actions = browsed.dataset.read_frames_and_actions(browsed.find(episode_id))
        windows = unfold(frames, actions[:-1].astype(np.int64))
        part = windows[first : first + min(count, MOST_WINDOWS)]
        if not len(part):
            return {"total": len(windows), "values": []}
        with self._lock:
            top_M = self._judge.judge(part).statistics["entropy_top"]
        return {"total": len(windows), "values": [round(float(value), 4) for value in top_M]}
