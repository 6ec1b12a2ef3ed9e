"""Pictures of an evaluation: a clip, the windows with the highest rewards, and where in the frame these come from.

<directory>/episode.gif        the episode with the highest return per step
<directory>/top_rewards.png    the windows with the highest rewards: five frames each, and the reward's map of the last
<directory>/entropy_map.png    the mean map over those windows, and over all frames of the shown episode

Axis letters: n actions of a fragment, H W C frame, h w the grid of a frame's tokens.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from genie_ray.base.figures import StripRow, heat_maps, labelled_clip, labelled_strip
from policies.rewards import WINDOW_ACTIONS, RewardClient

if TYPE_CHECKING:
    from genie_ray.storage.paths import StoredPath
    from policies.play.recorded import RecordedPlay

TOP_WINDOWS = 4
APART = 2 * WINDOW_ACTIONS  # steps between top windows of one episode; else all would show the same moment
TIMEOUT_S = 60.0
FRAME_MS = 100


def top_windows(rewards: list[NDArray[np.float32]], count: int = TOP_WINDOWS) -> list[tuple[int, int]]:
    """(episode, action) of the highest rewards, the highest first, at least APART steps apart within an episode."""
    places = [(float(value), e, t) for e, row in enumerate(rewards) for t, value in enumerate(row) if value == value]
    chosen: list[tuple[int, int]] = []
    for _, e, t in sorted(places, reverse=True):
        if len(chosen) == count:
            break
        if all(e != other or abs(t - at) >= APART for other, at in chosen):
            chosen.append((e, t))
    return chosen


def write_pictures(
    directory: StoredPath, plays: list[RecordedPlay], client: RewardClient, action_names: Sequence[str]
) -> None:
    """Writes the pictures of an evaluation's play.

    Raises:
        RewardUnavailableError: no answer to the request for maps.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rewards = [play.rewards for play in plays]
    shown = max(range(len(plays)), key=lambda e: _mean(rewards[e]))
    chosen = top_windows(rewards)
    asked_of = [*(e for e, _ in chosen), shown]
    frames = [plays[e].frames for e in asked_of]
    actions = [plays[e].actions.astype(np.int64) for e in asked_of]
    windows = [(f[t - 3 : t + 2], a[t - 3 : t + 1]) for f, a, (_, t) in zip(frames, actions, chosen, strict=False)]
    asked = [*windows, (frames[-1], actions[-1])]
    maps = (
        client.submit(
            [f for f, _ in asked],
            [a for _, a in asked],
            episodes=[uuid.uuid4().hex for _ in asked],
            maps=True,
            remember=False,
        )
        .answer(TIMEOUT_S)
        .maps
    )
    values = rewards[shown]
    captions = ["start", *(f"reward {v:.3f}" if v == v else "no reward yet" for v in values)]
    panels = {"play": frames[-1]}
    top = 1.0 if maps is None else _top(maps)
    strip = _strip(windows, maps, top, [values_of(rewards, place) for place in chosen], action_names)
    (directory / "top_rewards.png").write_bytes(strip)
    if maps is not None:
        size = frames[-1].shape[1]
        start = np.full_like(maps[-1][:1], np.nan)
        panels["where"] = heat_maps(np.concatenate([start, maps[-1]]), top, size)
        (directory / "entropy_map.png").write_bytes(_mean_maps(frames[-1], maps, top))
    (directory / "episode.gif").write_bytes(labelled_clip(panels, captions, frame_ms=FRAME_MS))


def values_of(rewards: list[NDArray[np.float32]], place: tuple[int, int]) -> float:
    """The reward at (episode, action)."""
    return float(rewards[place[0]][place[1]])


def _strip(
    windows: list[tuple[NDArray[np.uint8], NDArray[np.int64]]],
    maps: list[NDArray[np.float32]] | None,
    top: float,
    rewards: list[float],
    action_names: Sequence[str],
) -> bytes:
    """A row per window: the frames it is judged from, the judged frame and, if there is one, its map."""
    rows = []
    for number, ((frames, actions), reward) in enumerate(zip(windows, rewards, strict=True)):
        notes = [*(action_names[action] for action in actions), "judged"]
        if maps is not None:
            frames = np.concatenate([frames, heat_maps(maps[number][-1:], top, frames.shape[1])])
            notes.append("map")
        rows.append(StripRow(label=f"{reward:.3f}", frames=frames, notes=notes))
    heads = [*(f"t − {WINDOW_ACTIONS - i}" for i in range(WINDOW_ACTIONS)), "t"]
    if maps is None:
        return labelled_strip(rows, title="windows with the highest rewards", heads=heads)
    return labelled_strip(rows, title="windows with the highest rewards", heads=[*heads, "where"], heat=("value", top))


def _mean_maps(frames: NDArray[np.uint8], maps: list[NDArray[np.float32]], top: float) -> bytes:
    """The mean maps over the top windows and over an episode, beside the episode's mean frame."""
    size = frames.shape[1]
    means = np.stack([np.nanmean([m[-1] for m in maps[:-1]], axis=0), np.nanmean(maps[-1], axis=0)])
    pictures = np.concatenate([frames.mean(0).astype(np.uint8)[None], heat_maps(means, top, size)])
    row = StripRow(label="", frames=pictures)
    heads = ["mean frame", "top windows", "episode"]
    return labelled_strip([row], title="where the reward comes from", heads=heads, heat=("mean value", top))


def _top(maps: list[NDArray[np.float32]]) -> float:
    """The highest value, or 1 if none is above 0 (such as learning progress before anything was learned)."""
    highest = max(float(np.nanmax(m)) for m in maps)
    return highest if highest > 0 else 1.0


def _mean(values: NDArray[np.float32]) -> float:
    return -np.inf if np.isnan(values).all() else float(np.nanmean(values))
