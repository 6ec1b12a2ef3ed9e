"""Recorded play in other formats, before import into a replay dataset: frames and actions in files.

Axis letters: T actions, H, W and C=3 of the T+1 frames around them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import imageio.v3 as imageio
import numpy as np
from numpy.typing import NDArray

from genie_ray.base.frames import fit_frame
from genie_ray.replay.schema import Episode

VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".webm", ".mov")


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """What files in other formats do not tell, and how to resize their frames."""

    game: str | None = None  # None: from the files or their folder's name
    policy: str = "imported"  # part of the episodes' ids
    action_names: tuple[str, ...] = ()  # of actions 0, 1, …; empty: from the files, or the numbers
    frame_size: int | None = None  # pixels, height and width; None: frames stay as they are
    fit: Literal["pad", "stretch"] = "pad"  # as for environments

    def __post_init__(self) -> None:
        if self.frame_size is not None and self.frame_size < 1:
            raise ValueError(f"frame_size is {self.frame_size}: must be at least 1")
        if len(set(self.action_names)) < len(self.action_names):
            raise ValueError(f"action_names has a name twice: {', '.join(self.action_names)}")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """An episode in files of another format."""

    path: Path  # the file or folder, as named in errors
    episode_id: str
    game: str


def make_episode(
    recording: Recording,
    frames: Sequence[NDArray[np.uint8]],
    actions: Sequence[int],
    action_count: int,
    config: ImportConfig,
    **more: Any,
) -> Episode:
    """An episode of T actions and T+1 frames; `more` are its other fields, where known.

    Raises:
        ValueError: frames of several sizes, an unknown action, or a wrong number of actions; the message names the
            recording.
    """
    T = len(actions)
    wrong = sorted({action for action in actions if not 0 <= action < action_count})
    if wrong:
        raise ValueError(f"{recording.path} has action {wrong[0]}: must be 0 or more and below {action_count}")
    if len(frames) != T + 1:
        raise ValueError(f"{recording.path} has {len(frames)} frames and {T} actions: one frame more is needed")
    if config.frame_size is not None:
        frames = [fit_frame(frame, config.frame_size, config.fit) for frame in frames]
    sizes = sorted({frame.shape[:2] for frame in frames})
    if len(sizes) > 1:
        raise ValueError(f"{recording.path} has frames of several sizes: {', '.join(map(str, sizes))}")
    fields: dict[str, Any] = {
        "action_logp": None,
        "reward_env": np.full(T, np.nan, np.float32),  # unknown
        "reward_uncertainty": None,
        "terminated": False,
        "truncated": True,
        "infos": [{}] * (T + 1),
    }
    try:
        return Episode(
            episode_id=recording.episode_id,
            game=recording.game,
            frames=np.stack(frames),
            actions=np.asarray(actions, np.int8),
            **fields | more,
        )
    except ValueError as error:
        raise ValueError(f"{recording.path}: {error}") from error


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture file as uint8 [H, W, 3].

    Raises:
        ValueError: it is missing or not a picture; the message names it.
    """
    try:
        return np.asarray(imageio.imread(path, mode="RGB"), np.uint8)
    except (OSError, SyntaxError) as error:  # Pillow calls a broken PNG a syntax error
        raise ValueError(f"{path} is missing or not a picture: {error}") from error


def read_video(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video or GIF as decoded, uint8 [H, W, 3] each.

    Raises:
        ValueError: it is missing or not a video, or PyAV is not installed; the message names it.
    """
    try:
        if path.suffix == ".gif":
            yield from imageio.imiter(path, plugin="pillow", mode="RGB")
        else:
            yield from imageio.imiter(path, plugin="pyav", format="rgb24")
    except ImportError as error:
        raise ValueError(f"{path}: {NEEDS_PYAV}") from error
    except (OSError, SyntaxError, ValueError) as error:  # PyAV raises OSError or ValueError
        raise ValueError(f"{path} is missing or not a video: {error}") from error


NEEDS_PYAV = "videos need PyAV: pip install 'genie-ray[video]'"
