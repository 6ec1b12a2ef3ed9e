"""Which windows of a test dataset are predicted, how they are read, and the random actions that they are given.

Every draw is seeded by its window alone: by the episode and the first frame. How windows are batched changes nothing.

Axes: B batch, T frames, H W C pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genie_ray.base.seeding import seed_of, seeded_generator
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.replay.dataset import EpisodeRef, ReplayDataset

Start = tuple[EpisodeRef, int]  # the episode, and the window's first frame in it


class Windows(NamedTuple):
    """A batch of windows."""

    frames_BTHWC: Tensor  # uint8
    actions_BT: Tensor  # int64 [B, T−1], between the frames
    starts: Sequence[Start]

    @property
    def episodes(self) -> list[str]:
        """The id of each window's episode."""
        return [episode.episode_id for episode, _ in self.starts]

    def seeds(self, seed: int, *purpose: str) -> list[int]:
        """A seed for each window, which depends on nothing else than the window, `seed` and `purpose`."""
        return [seed_of(seed, episode.episode_id, start, *purpose) for episode, start in self.starts]


def window_starts(dataset: ReplayDataset, game: str, config: EvaluationConfig) -> list[Start]:
    """Episode and first frame of each window of a game, by episode; windows never leave their episode.

    Raises:
        ValueError: no episode of the game is long enough.
    """
    episodes = [episode for episode in dataset.episodes if episode.game == game]
    starts = [
        (episode, start)
        for episode in episodes
        for start in range(0, episode.length + 2 - config.window, config.stride)
    ]
    if not starts:
        longest = max(episode.length for episode in episodes) + 1
        raise ValueError(
            f"{dataset.root}: no window of {config.window} frames of {game}, its longest episode has {longest}"
        )
    if config.windows_per_game:
        starts = [starts[index] for index in evenly_spaced(len(starts), config.windows_per_game)]
    return starts


def evenly_spaced(total: int, wanted: int) -> list[int]:
    """At most `wanted` indices spread over 0..total−1, without repetition."""
    return [int(index) for index in np.unique(np.linspace(0, total - 1, wanted).round())]


def read_batches(dataset: ReplayDataset, starts: Sequence[Start], config: EvaluationConfig) -> Iterator[Windows]:
    """The windows in batches of `config.batch_size`, in order. Each episode is decoded once, if `starts` is by episode.

    Raises:
        ValueError: a file is damaged; the message names it.
    """
    held: EpisodeRef | None = None
    for first in range(0, len(starts), config.batch_size):
        batch = starts[first : first + config.batch_size]
        frames, actions = [], []
        for reference, start in batch:
            if reference != held:
                held, (frames_NHWC, actions_N) = reference, dataset.read_frames_and_actions(reference)
            frames.append(frames_NHWC[start : start + config.window])
            actions.append(actions_N[start : start + config.window - 1])
        yield Windows(torch.from_numpy(np.stack(frames)), torch.from_numpy(np.stack(actions).astype(np.int64)), batch)


def blackened(frames_BTHWC: Tensor, config: EvaluationConfig) -> Tensor:
    """The frames as they are compared: with `config.black_corner` in black."""
    rows, columns = config.black_corner
    if not rows or not columns:
        return frames_BTHWC
    shown_BTHWC = frames_BTHWC.clone()
    shown_BTHWC[..., :rows, :columns, :] = 0
    return shown_BTHWC


def random_actions(actions_BT: Tensor, num_actions: int, config: EvaluationConfig, seeds: Sequence[int]) -> Tensor:
    """The actions that ΔPSNR compares with: all random, or only the one that leads to its frame changed.

    Actions between given frames are kept: others would contradict what the frames show.

    Args:
        actions_BT: int64 [B, T−1], in [0, num_actions).
        seeds: one for each window.
    """
    others_BT = actions_BT.clone()
    first, last = config.prime_frames - 1, config.prime_frames + config.delta_psnr_frame - 2
    for others_T, seed in zip(others_BT, seeds, strict=True):
        generator = seeded_generator("cpu", seed)
        if config.random_actions == "all":
            others_T[first:] = torch.randint(num_actions, others_T[first:].shape, generator=generator)
        else:
            shift = torch.randint(1, num_actions, (), generator=generator)
            others_T[last] = (others_T[last] + shift) % num_actions
    return others_BT
