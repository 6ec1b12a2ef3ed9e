"""A judge's input: windows, cut from fragments of play inside the service so that each frame is sent only once.

A window holds frames t−4 … t and actions t−4 … t−1; it is judged for the transition into frame t.

Axis letters: M windows, n actions of a fragment, F frames of all fragments, H W C frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import repeat

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from policies.rewards import WINDOW_ACTIONS

WINDOW_FRAMES = WINDOW_ACTIONS + 1


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows in the order of play."""

    frames_FHWC: np.ndarray  # uint8; of the fragments, one after another
    starts_M: np.ndarray  # int64; which of them is each window's frame t−4
    actions_M4: np.ndarray  # int64
    episodes: list[str] | None  # of each window
    remember: bool = True  # whether a judge that learns, or counts all play, may use them for that

    def __len__(self) -> int:
        return len(self.actions_M4)

    @property
    def frames(self) -> np.ndarray:
        """Each window's frames, copied: [M, 5, H, W, C]."""
        return self.frames_FHWC[self.starts_M[:, None] + np.arange(WINDOW_FRAMES)]

    def __getitem__(self, part: slice) -> Windows:
        """A slice of them; shares memory."""
        return replace(
            self,
            starts_M=self.starts_M[part],
            actions_M4=self.actions_M4[part],
            episodes=None if self.episodes is None else self.episodes[part],
        )


def unfold(frames: np.ndarray, actions: np.ndarray, episode: str | None = None) -> Windows:
    """Cuts a fragment into its windows, which share its memory.

    Args:
        frames: uint8 [n + 1, H, W, C].
        actions: int64 [n]; `actions[i]` leads from `frames[i]` to `frames[i + 1]`.
        episode: the fragment's episode.

    Returns:
        max(n − 3, 0) windows; window m is for the transition into `frames[m + 4]`.
    """
    count = max(len(actions) - WINDOW_ACTIONS + 1, 0)
    actions_M4 = sliding_window_view(actions, WINDOW_ACTIONS) if count else np.empty((0, WINDOW_ACTIONS), np.int64)
    episodes = None if episode is None else list(repeat(episode, count))
    return Windows(frames_FHWC=frames, starts_M=np.arange(count), actions_M4=actions_M4, episodes=episodes)


def join(parts: Sequence[Windows]) -> Windows:
    """Copies what all parts show into one batch. Either all of them know their episodes, or none does."""
    frames, starts, number = [], [], 0
    for part in parts:
        first, end = (part.starts_M[0], part.starts_M[-1] + WINDOW_FRAMES) if len(part) else (0, 0)
        frames.append(part.frames_FHWC[first:end])
        starts.append(part.starts_M - first + number)
        number += end - first
    episodes = [episode for part in parts for episode in part.episodes or ()]
    joined = Windows(
        frames_FHWC=np.concatenate(frames),
        starts_M=np.concatenate(starts),
        actions_M4=np.concatenate([part.actions_M4 for part in parts]),
        episodes=episodes or None,
    )
    assert joined.episodes is None or len(joined.episodes) == len(joined)
    return joined


def check_fragments(
    frames: Sequence[np.ndarray],
    actions: Sequence[np.ndarray],
    episodes: Sequence[str] | None,
    *,
    frame_size: int,
    num_actions: int,
) -> None:
    """Refuses fragments that cannot be judged.

    Raises:
        ValueError: one line that names the fragment, what was given and what is allowed.
    """
    if not len(frames) == len(actions) == len(frames if episodes is None else episodes):
        raise ValueError(
            f"{len(frames)} frame arrays, {len(actions)} action arrays"
            + ("" if episodes is None else f" and {len(episodes)} episodes")
            + "; allowed: one of each per fragment"
        )
    for number, (frames_of, actions_of) in enumerate(zip(frames, actions, strict=True)):
        if actions_of.ndim != 1 or not np.issubdtype(actions_of.dtype, np.integer):
            raise ValueError(
                f"fragment {number}: actions have shape {list(actions_of.shape)} and type {actions_of.dtype}; "
                "allowed: [n], integers"
            )
        allowed = [len(actions_of) + 1, frame_size, frame_size, 3]
        if frames_of.dtype != np.uint8 or list(frames_of.shape) != allowed:
            raise ValueError(
                f"fragment {number}: frames have shape {list(frames_of.shape)} and type {frames_of.dtype}; allowed "
                f"with {len(actions_of)} actions: {allowed}, uint8"
            )
        if actions_of.size and not 0 <= actions_of.min() <= actions_of.max() < num_actions:
            raise ValueError(
                f"fragment {number}: actions range from {actions_of.min()} to {actions_of.max()}; "
                f"allowed: 0 to {num_actions - 1}"
            )
