"""What of a test dataset the training data already shows: windows met bit for bit, and how rare each frame's cell is.

Retro games begin in one state and draw no random numbers, so episodes that no training saw can still hold frames that
it saw: intros, still scenes. Scores on them say little, and scores on rare scenes say more than the mean.

Only 64-bit hashes are compared: two windows are confused with a probability of about 2⁻⁶¹. Memory grows with the test
dataset alone; the training data are read once, episode by episode.

Axes: N frames of an episode, W windows, T frames of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.windows import Start, window_starts
from genie_ray.replay.coverage import cells
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.storage.paths import Location

RAREST = 0.1
"""Share of the cells that count as rare."""

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Familiarity:
    """How much of a game's test windows is known from training, in the order of `window_starts`."""

    seen_W: NDArray[np.bool_]  # all frames of the window stand in this order in an episode of the training data
    rare_WT: NDArray[np.bool_]  # the predicted frame's cell is among the rarest tenth


def find_familiar(dataset: Location, train: Sequence[Location], config: EvaluationConfig) -> Mapping[str, Familiarity]:
    """Compares the windows of every game of a test dataset with the same game's play in training datasets.

    Cells are those of `replay/coverage.py`. The cells that the predicted frames of a game show are ranked by how many
    frames of the training data show them; the rarest tenth, and all as rare as these, count as rare.

    Raises:
        ValueError: a dataset is missing or damaged, a training dataset has other frames, or no episode is long enough.
    """
    test, training = _open_alike(dataset, train)
    return {
        game: _compare(test, training, game, window_starts(test, game, config), config)
        for game in sorted({episode.game for episode in test.episodes})
    }


def find_unreached(
    dataset: Location, play: Sequence[Location], config: EvaluationConfig
) -> Mapping[str, NDArray[np.bool_]]:
    """Which windows of every game begin where other play of it never was, in the order of `window_starts`, [W] each.

    A window is predicted from its last given frame; it is unreached if no frame of the other play is in that cell.

    Raises:
        ValueError: a dataset is missing or damaged, one of the play has other frames, or no episode is long enough.
    """
    test, others = _open_alike(dataset, play)
    found = {}
    for game in sorted({episode.game for episode in test.episodes}):
        starts = window_starts(test, game, config)
        begun_W = np.array([cells_N[at + config.prime_frames - 1] for at, cells_N in _cells_of(test, starts)])
        reached = np.zeros(0, np.uint64)
        for other in others:
            for ref in (ref for ref in other.episodes if ref.game == game):
                reached = np.union1d(reached, np.intersect1d(begun_W, cells(other.read_frames_and_actions(ref)[0])))
        found[game] = ~np.isin(begun_W, reached)
    return found


def _open_alike(dataset: Location, others: Sequence[Location]) -> tuple[ReplayDataset, list[ReplayDataset]]:
    test, opened = ReplayDataset(dataset), [ReplayDataset(path) for path in others]
    for other in opened:
        if other.metadata.frame_shape != test.metadata.frame_shape:
            raise ValueError(
                f"frame shape of training data {other.root} is {other.metadata.frame_shape}: "
                f"must be {test.metadata.frame_shape} as in {test.root}"
            )
    return test, opened


def _cells_of(test: ReplayDataset, starts: Sequence[Start]) -> Iterator[tuple[int, Hashes]]:
    """The first frame of each window, and the cells of its episode's frames [N]; an episode is decoded once."""
    episode, cells_N = "", np.zeros(0, np.uint64)
    for ref, start in starts:
        if ref.episode_id != episode:
            episode, cells_N = ref.episode_id, cells(test.read_frames_and_actions(ref)[0])
        yield start, cells_N


def _compare(
    test: ReplayDataset, training: Sequence[ReplayDataset], game: str, starts: Sequence[Start], config: EvaluationConfig
) -> Familiarity:
    windows_W, cells_WT = _hash_windows(test, starts, config)
    known, seen = np.unique(windows_W), np.zeros(0, np.uint64)
    shown = np.unique(cells_WT)
    counts = np.zeros(len(shown), np.int64)
    for dataset in training:
        for ref in (ref for ref in dataset.episodes if ref.game == game):
            frames_NHWC, _ = dataset.read_frames_and_actions(ref)
            seen = np.union1d(seen, np.intersect1d(known, sequences(frame_hashes(frames_NHWC), config.window)))
            cells_there, times = np.unique(cells(frames_NHWC), return_counts=True)
            _, ours, theirs = np.intersect1d(shown, cells_there, assume_unique=True, return_indices=True)
            counts[ours] += times[theirs]
    rare = shown[rarest(counts)]
    return Familiarity(np.isin(windows_W, seen), np.isin(cells_WT, rare))


def rarest(counts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which counts are among the lowest tenth (rounded up), or equal to one of these."""
    return counts <= np.sort(counts)[int(np.ceil(RAREST * len(counts))) - 1]


def frame_hashes(frames_NHWC: NDArray[np.uint8]) -> Hashes:
    """A hash of each frame [N]."""
    digests = [blake2b(frame.tobytes(), digest_size=8).digest() for frame in frames_NHWC]
    return np.frombuffer(b"".join(digests), np.uint64)


def sequences(hashes_N: Hashes, length: int) -> Hashes:
    """A hash of each run of `length` consecutive frames [N − length + 1]; none if there are fewer frames.

    A random linear function modulo 2⁶⁴ of the frames' hashes, with odd weights.
    """
    if len(hashes_N) < length:
        return np.zeros(0, np.uint64)
    weights_T = np.random.PCG64(0).random_raw(length) | np.uint64(1)
    return np.lib.stride_tricks.sliding_window_view(hashes_N, length) @ weights_T


def _hash_windows(test: ReplayDataset, starts: Sequence[Start], config: EvaluationConfig) -> tuple[Hashes, Hashes]:
    """The hash of each window [W] and the cell of each predicted frame [W, T]; an episode is decoded once."""
    windows, places = [], []
    episode, hashes_N, cells_N = "", np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    for ref, start in starts:
        if ref.episode_id != episode:
            frames_NHWC, _ = test.read_frames_and_actions(ref)
            episode, hashes_N, cells_N = ref.episode_id, frame_hashes(frames_NHWC), cells(frames_NHWC)
        windows.append(sequences(hashes_N[start : start + config.window], config.window)[0])
        places.append(cells_N[start + config.prime_frames : start + config.window])
    return np.array(windows), np.stack(places)
