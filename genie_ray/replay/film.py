"""Pictures of recorded episodes: a film strip (PNG) and a clip (GIF), annotated with actions and rewards.

Axis letters: T shown frames, H, W and C of a frame.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from genie_ray.base.figures import StripRow, labelled_clip, labelled_strip
from genie_ray.base.files import write_atomically
from genie_ray.base.progress import notices, progress_bar
from genie_ray.replay.dataset import EpisodeRef, ReplayDataset
from genie_ray.replay.schema import Episode, policy_of

STRIP_COLUMNS = 10  # frames side by side
GIF_FRAME_MS = 100


def choose_episodes(
    dataset: ReplayDataset, *, game: str | None, policy: str | None, episode: str | None, count: int
) -> list[EpisodeRef]:
    """`count` of the matching episodes, evenly spread; all of them if there are fewer.

    Args:
        game: its id, with or without `-v0`; None for any.
        policy: its name; None for any.
        episode: an episode's id; None for any.

    Raises:
        ValueError: none matches; the message says what there is.
    """
    if count < 1:
        raise ValueError(f"count is {count}: must be at least 1")
    chosen = [
        ref
        for ref in dataset.episodes
        if (game is None or ref.game in (game, f"{game}-v0"))
        and (policy is None or policy_of(ref.episode_id) == policy)
        and (episode is None or ref.episode_id == episode)
    ]
    if not chosen:
        wanted = {"game": game, "policy": policy, "id": episode}
        asked = ", ".join(f"{name} {value!r}" for name, value in wanted.items() if value is not None)
        there = sorted({f"{ref.game} by {policy_of(ref.episode_id)}" for ref in dataset.episodes})
        raise ValueError(
            f"{dataset.root} has no episode with {asked}: it has {', '.join(there)}; ids are like "
            f"{dataset.episodes[0].episode_id}"
        )
    count = min(count, len(chosen))
    return [chosen[index * len(chosen) // count] for index in range(count)]


def show_episodes(dataset: ReplayDataset, episodes: Sequence[EpisodeRef], output: Path, *, every: int) -> list[Path]:
    """Writes `<episode>.png` and `<episode>.gif` (`/` of the id as `_`) of each episode; returns their paths.

    Args:
        every: steps from one shown frame to the next; the episode's last frame is always shown.

    Raises:
        ValueError: `every` is below 1, or a file is damaged.
    """
    if every < 1:
        raise ValueError(f"every is {every}: must be at least 1")
    output.mkdir(parents=True, exist_ok=True)
    paths = []
    with progress_bar("show", len(episodes), to=notices) as bar:
        for done, ref in enumerate(episodes, start=1):
            strip, clip = film(dataset.read(ref), dataset.metadata.action_names, every)
            name = ref.episode_id.replace("/", "_")
            for path, picture in ((output / f"{name}.png", strip), (output / f"{name}.gif", clip)):
                write_atomically(path, partial(Path.write_bytes, data=picture))
                paths.append(path)
            bar.update(done)
    return paths


def film(episode: Episode, action_names: Sequence[str], every: int) -> tuple[bytes, bytes]:
    """The film strip (PNG) and the clip (GIF) of an episode.

    Each frame is captioned with the action taken on it and the game's reward until the next shown frame.
    """
    T = len(episode.actions)
    shown = [*range(0, T, every), T]
    frames = episode.frames[shown]
    gains = [float(np.nansum(episode.reward_env[a:b])) for a, b in itertools.pairwise(shown)]
    taken = [action_names[episode.actions[step]] for step in shown[:-1]]
    ending = "game over" if episode.terminated else "cut off" if episode.truncated else "end"
    notes = [
        f"{step}: {action}" + (f"\n{gain:+g}" if gain else "")
        for step, action, gain in zip(shown, taken, gains, strict=False)
    ]
    notes.append(f"{T}: {ending}")
    rows = [
        StripRow(label="", frames=frames[first : first + STRIP_COLUMNS], notes=notes[first : first + STRIP_COLUMNS])
        for first in range(0, len(shown), STRIP_COLUMNS)
    ]
    strip = labelled_strip(rows, title=f"{episode.episode_id}, every {every} steps")

    totals = np.cumsum([0, *gains])
    captions = [
        f"step {step} · {action} · reward {gain:g} · total {total:g}"
        for step, action, gain, total in zip(shown, taken, gains, totals, strict=False)
    ]
    captions.append(f"step {T} · {ending} · total {totals[-1]:g}")
    return strip, labelled_clip({episode.episode_id: frames}, captions, frame_ms=GIF_FRAME_MS)
