"""The clips of a study: recorded play, a world model's predictions, and what the emulator shows under other actions.

Axes: B batch, T frames of a window, H W C pixels.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import torch
from numpy.typing import NDArray

from genie_ray.base.progress import progress_bar
from genie_ray.evaluating.ceiling import NO_ENVIRONMENT, OtherFrames, other_frames
from genie_ray.evaluating.predictors import ModelPredictor, Predictor
from genie_ray.evaluating.windows import Start, Windows, read_batches
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.storage import checkpoints
from genie_ray.storage.paths import Location, StoredPath
from genie_ray.studies.config import TRUTH, Kind, StudyConfig
from genie_ray.studies.plan import Clip, Sample, evaluation_config
from world_model.checkpoint import WorldModel
from world_model.genie import GenieReduxG

Frames = NDArray[np.uint8]  # T H W C


def load_models(
    kind: Kind, models: Mapping[str, StoredPath], dataset: ReplayDataset, config: StudyConfig
) -> dict[str, Predictor]:
    """What predicts, by label.

    Raises:
        ValueError: a checkpoint that is none, does not fit the dataset or the length of the clips, or takes no actions
            that the action study could name.
    """
    evaluation, found = evaluation_config(config), dict[str, Predictor]()
    for label, path in models.items():
        model = checkpoints.load_as(GenieReduxG if kind == "action" else WorldModel, path)
        actions = model.num_actions if isinstance(model, GenieReduxG) else None
        dataset.metadata.require_fit(frame_size=model.tokenizer.config.frame_size, num_actions=actions)
        evaluation.require_horizon(model.dynamics.config.max_frames, str(path), "")
        found[label] = ModelPredictor(config.prime_frames, model, evaluation.decoding, config.precision)
    return found


def make_clips(
    samples: Sequence[Sample], dataset: ReplayDataset, models: Mapping[str, Predictor], config: StudyConfig
) -> dict[Clip, Frames]:
    """The frames of every clip of the samples.

    Raises:
        ValueError: the emulator cannot show what it is asked to.
    """
    wanted = sorted(
        {clip for sample in samples for clip in (sample.left, sample.right)},
        key=lambda clip: (clip.source, clip.window, clip.action or ""),
    )
    made: dict[Clip, Frames] = {}
    held = [clip for clip in wanted if clip.source == TRUTH and clip.action is not None]
    made |= _emulated(held, dataset, config)
    left = [clip for clip in wanted if clip not in made]
    with progress_bar("clips", len(left)) as bar:
        for label in dict.fromkeys(clip.source for clip in left):
            for clip, frames in _predicted([c for c in left if c.source == label], dataset, models.get(label), config):
                made[clip] = frames
                bar.update(len(made) - len(held))
    return made


def _predicted(
    clips: Sequence[Clip], dataset: ReplayDataset, predictor: Predictor | None, config: StudyConfig
) -> Iterator[tuple[Clip, Frames]]:
    """Clips of one source: a model's, or as recorded without one."""
    done = 0
    for windows in read_batches(dataset, [clip.window for clip in clips], evaluation_config(config)):
        batch = clips[done : done + len(windows.starts)]
        done += len(batch)
        frames_BTHWC = windows.frames_BTHWC
        if predictor is not None:
            given = frames_BTHWC[:, : config.prime_frames]
            frames_BTHWC = torch.cat([given, _predict(predictor, windows, batch, dataset, config)], dim=1)
        yield from zip(batch, frames_BTHWC.numpy(), strict=True)


def _predict(
    predictor: Predictor, windows: Windows, clips: Sequence[Clip], dataset: ReplayDataset, config: StudyConfig
) -> torch.Tensor:
    actions_BT = windows.actions_BT.clone()
    for taken_T, clip in zip(actions_BT, clips, strict=True):
        if clip.action is not None:
            taken_T[config.prime_frames - 1 :] = dataset.metadata.action_names.index(clip.action)
    guidance = predictor.guidance(windows.frames_BTHWC, actions_BT)
    return predictor.predict(windows.frames_BTHWC, guidance.actions_BT, windows.seeds(config.seed, "study"))


def _emulated(clips: Sequence[Clip], dataset: ReplayDataset, config: StudyConfig) -> dict[Clip, Frames]:
    """Clips of the game itself with a held action."""
    made: dict[Clip, Frames] = {}
    names = dataset.metadata.action_names
    for game in sorted({clip.window[0].game for clip in clips}):
        of_game = [clip for clip in clips if clip.window[0].game == game]
        starts = [clip.window for clip in of_game]
        actions = [[names.index(clip.action or "")] * (config.window - 1) for clip in of_game]
        found = OtherFrames(None, NO_ENVIRONMENT)
        if "env" in dataset.metadata.config:
            try:  # in a process of its own, which an emulator may crash
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    found = pool.submit(_other_frames, dataset.root, starts, actions, config.prime_frames).result()
            except BrokenProcessPool:
                found = OtherFrames(None, "it crashed")
        if found.frames_BPHWC is None:
            raise ValueError(
                f"the emulator cannot show {game} under the named actions, as truth is {config.truth} (0 does without "
                f"such pairs): {found.reason}"
            )
        recorded = [frames for _, frames in _predicted(of_game, dataset, None, config)]
        for clip, frames, others in zip(of_game, recorded, found.frames_BPHWC.numpy(), strict=True):
            made[clip] = np.concatenate([frames[: config.prime_frames], others])
    return made


def _other_frames(root: Location, starts: list[Start], actions: list[list[int]], prime_frames: int) -> OtherFrames:
    return other_frames(ReplayDataset(root), starts, torch.tensor(actions), prime_frames)
