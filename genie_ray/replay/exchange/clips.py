"""Plain clips: videos, each with a list of its actions.

    <game>/run-7.mp4 (or .gif, .mkv, .avi, .webm, .mov)   the frames
    <game>/run-7.json                                     a list of actions: numbers, or names
    <game>/run-8.npz                                      both in one: uint8 `frames` [T+1, H, W, 3], `actions` [T]

Action t is taken on frame t. There is one frame more than actions, or the same number: then the last action's result
was not recorded, and the action is dropped. The folder is named after the game. `.npz` is exact; a video is as exact as
its codec; a GIF has 256 colours.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genie_ray.replay.exchange.recordings import VIDEO_SUFFIXES, ImportConfig, Recording, make_episode, read_video
from genie_ray.replay.schema import Episode, episode_id

SUFFIXES = (".npz", ".gif", *VIDEO_SUFFIXES)


def find_clips(source: Path, config: ImportConfig) -> list[Recording]:
    """The recordings in a directory or one level below it, or a single file; sorted by name."""
    candidates = [source] if source.is_file() else [*source.glob("*"), *source.glob("*/*")]
    paths = sorted(path for path in candidates if path.suffix in SUFFIXES)
    recordings, count = [], dict.fromkeys((path.parent for path in paths), 0)
    for path in paths:
        game = config.game or path.absolute().parent.name
        name = episode_id(game, config.policy, sorted(count).index(path.parent), count[path.parent])
        recordings.append(Recording(path=path, episode_id=name, game=game))
        count[path.parent] += 1
    return recordings


def action_names(recordings: Sequence[Recording]) -> tuple[str, ...]:
    """The names of all actions that occur, in alphabetical order; numbers, if actions are numbers.

    Raises:
        ValueError: a damaged file, or a mix of names and numbers; the message names the file.
    """
    found: set[Any] = set()
    for recording in recordings:
        found.update(_read_actions(recording.path))
        if len({type(action) for action in found}) > 1:
            raise ValueError(f"{recording.path}: actions are numbers in some recordings and names in others")
    if all(isinstance(action, int) for action in found):
        return tuple(map(str, range(max(found, default=0) + 1)))
    return tuple(sorted(found))


def read_clip(recording: Recording, names: Sequence[str], config: ImportConfig) -> Episode:
    """The episode of a recording.

    Raises:
        ValueError: a damaged file, an unknown action, or mismatched numbers of frames and actions; the message names
            the file.
    """
    path = recording.path
    if path.suffix == ".npz":
        with _open_npz(path) as arrays:
            frames = list(arrays["frames"])
            if arrays["frames"].dtype != np.uint8:
                raise ValueError(f"{path}: frames are {arrays['frames'].dtype}: must be uint8")
    else:
        frames = list(read_video(path))
    actions = _read_actions(path)
    unknown = sorted({action for action in actions if isinstance(action, str)} - set(names))
    if unknown:
        raise ValueError(f"{path} has action {unknown[0]!r}: allowed are {', '.join(names)}")
    numbers = [names.index(action) if isinstance(action, str) else action for action in actions]
    if len(numbers) == len(frames):
        numbers = numbers[:-1]
    return make_episode(recording, frames, numbers, len(names), config)


def _read_actions(path: Path) -> list[int] | list[str]:
    """The actions of a recording, from the file itself or the one beside it."""
    if path.suffix == ".npz":
        with _open_npz(path) as arrays:
            actions = arrays["actions"].tolist()
    else:
        path = path.with_suffix(".json")
        try:
            actions = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"damaged or missing {path}: {error}") from error
    kinds = {type(action) for action in actions} if isinstance(actions, list) else set()
    if kinds not in ({int}, {str}):
        raise ValueError(f"{path}: actions must be a list of numbers or of names")
    return actions


def _open_npz(path: Path) -> Any:
    try:
        arrays = np.load(path)
        if not {"frames", "actions"} <= set(arrays):
            raise ValueError(f"it has {', '.join(arrays)}, not frames and actions")
        return arrays
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"damaged {path}: {error}") from error
