"""How well world models predict and follow actions: PSNR, SSIM, FID and ΔPSNR over the horizon, beside copying a frame.

Protocol (paper, section 5): windows of a test dataset that no model was trained on; the first 2 frames and all actions
are given, 10 frames are predicted. ΔPSNR (Genie, section 3) compares that prediction with one under random actions,
decoded the same way.

A new measure of windows is one more entry of `measure`, and a part of `scores.row` that sums it up.
Axes: B batch, T frames, H W C pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genie_ray.base.errors import cause_of
from genie_ray.base.files import write_atomically
from genie_ray.base.progress import progress_bar
from genie_ray.base.session import LOCAL_LOGICAL_CPUS, RayConfig
from genie_ray.evaluating.action_probe import PROBED_WINDOWS
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.familiar import Familiarity, find_familiar
from genie_ray.evaluating.networks import Networks, given_networks
from genie_ray.evaluating.predictors import COPY, TOKENIZER, Guidance, Predictor, load_predictor
from genie_ray.evaluating.published_figures import read_figures
from genie_ray.evaluating.scores import Tally, frame_errors, frame_ssim, row
from genie_ray.evaluating.windows import Windows, evenly_spaced, random_actions, read_batches, window_starts
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.storage import Location, resolve
from world_model.checkpoint import WorldModel, read_config
from world_model.genie import GenieReduxConfig

SIDE_BY_SIDE = 2
"""Models that a local Ray scores at once; more would only compete for its cores."""


def evaluate(
    models: Mapping[str, Path],
    dataset: Path,
    output: Path,
    config: EvaluationConfig,
    ray_config: RayConfig,
    *,
    train_data: Sequence[Location] = (),
) -> dict[str, Any]:
    """Scores checkpoints on a test dataset, each in its own Ray task (with a GPU, if it needs one and there are any).

    Writes `evaluation.json` (scores per model and game, and over all games) and `film_strips.npz` (uint8 frames:
    `<label>/<game>` and `truth/<game>`, each [windows, T, H, W, C]) to `output`.

    Args:
        models: label → checkpoint directory of a world model. The first one's tokenizer is also scored alone.
        train_data: datasets that any of the models was trained on: scores without the windows that these hold bit for
            bit are given too.

    Returns:
        The contents of evaluation.json.

    Raises:
        ValueError: the dataset has no window of that length, or a checkpoint, network or training dataset does not fit
            it.
    """
    import ray

    metadata = ReplayDataset(dataset).metadata
    Networks(config, metadata.frame_shape[:2], "cpu")  # refuses a wrong file before anything starts
    published = read_figures(config.published_figures) if config.published_figures is not None else []
    for checkpoint in models.values():
        model = read_config(WorldModel, checkpoint)
        num_actions = model.dynamics.num_actions
        if isinstance(model, GenieReduxConfig):  # infers its own actions, from the whole window
            num_actions = None
        metadata.require_fit(frame_size=model.tokenizer.frame_size, num_actions=num_actions)
        require_horizon(checkpoint, model.dynamics.max_frames, config)
    train = [resolve(path) for path in train_data]
    entries: list[tuple[str, Path | None]] = [(COPY, None), (TOKENIZER, next(iter(models.values()))), *models.items()]
    task, cpus = ray.remote(score), LOCAL_LOGICAL_CPUS // SIDE_BY_SIDE
    familiar = None
    if train:
        try:
            familiar = ray.get(ray.remote(find_familiar).remote(dataset.resolve(), train, config))
        except Exception as error:
            raise cause_of(error) from error
    pending = {
        task.options(num_cpus=cpus, num_gpus=gpus_for(path, config, ray_config)).remote(
            label, path and path.resolve(), dataset.resolve(), config, ray_config, familiar
        ): label
        for label, path in entries
    }
    results: dict[str, Any] = {}
    with progress_bar("evaluate", len(entries)) as bar:
        while len(results) < len(entries):
            (finished,), _ = ray.wait([ref for ref, label in pending.items() if label not in results])
            try:
                results[pending[finished]] = ray.get(finished)
            except Exception as error:
                raise cause_of(error) from error
            bar.update(len(results), scored=pending[finished])
    document = {
        "protocol": asdict(config),
        "dataset": ReplayDataset(dataset).content_hash(),
        "train_data": [ReplayDataset(path).content_hash() for path in train],
        "models": {label: results[label].scores for label, _ in entries},
        "published": published,
    }
    text = json.dumps(document, indent=1, allow_nan=False)
    output.mkdir(parents=True, exist_ok=True)
    strips = {key: frames for result in results.values() for key, frames in result.film_strips.items()}
    write_atomically(output / "film_strips.npz", lambda path: np.savez_compressed(path, **strips))
    write_atomically(output / "evaluation.json", lambda path: path.write_text(text))
    return document


def gpus_for(checkpoint: Path | None, config: EvaluationConfig, ray_config: RayConfig) -> int:
    """The GPUs that a row asks for: copying a frame needs one only for the user's networks."""
    return int(ray_config.use_gpu and (checkpoint is not None or bool(given_networks(config))))


def require_horizon(checkpoint: Path, longest: int, config: EvaluationConfig) -> None:
    """Raises ValueError unless a model whose clips have `longest` frames can predict windows of the configured length.

    Windows beyond a clip are decoded frame by frame in a sliding clip, and in no other way.
    """
    decoding = config.decoding
    if config.window <= longest:
        return
    if decoding.mode != "autoregressive" or decoding.frames_per_step != 1:
        raise ValueError(
            f"prime_frames + predicted_frames is {config.window}: must be at most {longest}, the clip of {checkpoint}, "
            f"unless evaluation.decoding.mode is autoregressive and evaluation.decoding.frames_per_step is 1"
        )
    if config.prime_frames >= longest:
        raise ValueError(
            f"prime_frames is {config.prime_frames}: must be at most {longest - 1}, as {checkpoint} has clips of "
            f"{longest} frames"
        )


@dataclass(frozen=True)
class Result:
    """The result of scoring one row of the table."""

    scores: dict[str, Any]
    film_strips: dict[str, np.ndarray]


def score(
    label: str,
    checkpoint: Path | None,
    path: Path,
    config: EvaluationConfig,
    ray_config: RayConfig,
    familiar: Mapping[str, Familiarity] | None = None,
) -> Result:
    """Scores one row of the table on every game, in the calling process; `evaluate` calls it in a Ray task.

    Args:
        familiar: by game, what the training data show of its windows.
    """
    torch.set_num_threads(ray_config.torch_threads(SIDE_BY_SIDE))
    dataset = ReplayDataset(path)
    predictor = load_predictor(label, checkpoint, config)
    networks = Networks(config, dataset.metadata.frame_shape[:2], predictor.device)
    every, every_unseen = Tally(), Tally()
    rows: dict[str, Any] = {}
    film_strips: dict[str, np.ndarray] = {}
    for game in sorted({episode.game for episode in dataset.episodes}):
        tally, unseen = Tally(), Tally()
        starts = window_starts(dataset, game, config)
        known = familiar[game] if familiar is not None else None
        shown = set(evenly_spaced(len(starts), config.film_strips))
        probed = set(evenly_spaced(len(starts), PROBED_WINDOWS))
        kept: dict[str, list[np.ndarray]] = {"truth": [], label: []}
        first = 0
        for windows in read_batches(dataset, starts, config):
            batch = slice(first, first + len(windows.starts))
            true_BTHWC = windows.frames_BTHWC[:, config.prime_frames :]
            guidance = predictor.guidance(windows.frames_BTHWC, windows.actions_BT)
            predicted_BTHWC, values = measure(predictor, windows, guidance, networks, config)
            of_truth, of_prediction = networks.features(true_BTHWC), networks.features(predicted_BTHWC)
            features = {name: (of_prediction[name], of_truth[name]) for name in of_truth}
            if known is not None:
                values |= {"seen": torch.tensor(known.seen_W[batch]), "rare": torch.tensor(known.rare_WT[batch])}
                unseen.add(windows.episodes, values, features, only=~values["seen"])
            tally.add(windows.episodes, values, features)
            if guidance.vectors_BTD is not None:
                picks = [index for index in range(len(windows.starts)) if first + index in probed]
                episodes = [windows.episodes[index] for index in picks]
                vectors_BTD = guidance.vectors_BTD[picks]
                tally.samples.add(guidance.actions_BT[picks], vectors_BTD, windows.actions_BT[picks], episodes)
            for index in shown.intersection(range(batch.start, batch.stop)):
                kept["truth"].append(windows.frames_BTHWC[index - first].numpy())
                kept[label].append(predicted_BTHWC[index - first].numpy())
            first = batch.stop
        film_strips |= {f"{source}/{game}": np.stack(frames) for source, frames in kept.items() if frames}
        rows[game] = full_row(tally, unseen, config) | {
            "window_errors": tally.values()["errors"].mean(1).tolist(),
            "window_episodes": tally.episodes,
        }
        every.merge(tally)
        every_unseen.merge(unseen)
    rows["all"] = full_row(every, every_unseen, config)
    return Result(scores=rows, film_strips=film_strips)


def measure(
    predictor: Predictor, windows: Windows, guidance: Guidance, networks: Networks, config: EvaluationConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Predicts windows: the frames uint8 [B, T, H, W, C], and measures of them by name, [B, …] (see `Tally`)."""
    frames_BTHWC, true_BTHWC = windows.frames_BTHWC, windows.frames_BTHWC[:, config.prime_frames :]
    seeds = windows.seeds(config.seed)  # of both rollouts: only the actions differ
    predicted_BTHWC = predictor.predict(frames_BTHWC, guidance.actions_BT, seeds)
    values = {
        "errors": frame_errors(predicted_BTHWC, true_BTHWC),
        "ssim": frame_ssim(predicted_BTHWC, true_BTHWC),
        **networks.distances(predicted_BTHWC, true_BTHWC),
    }
    if predictor.num_actions:
        others = windows.seeds(config.seed, "random")
        others_BT = random_actions(guidance.actions_BT, predictor.num_actions, config, others)
        values["random_errors"] = frame_errors(predictor.predict(frames_BTHWC, others_BT, seeds), true_BTHWC)
    return predicted_BTHWC, values


def full_row(tally: Tally, unseen: Tally, config: EvaluationConfig) -> dict[str, Any]:
    """The scores on all windows and, if training data were given, on those that these do not hold as `unseen`."""
    scores = row(tally, config)
    if "seen_share" in scores:
        scores["unseen"] = row(unseen, config) if unseen.episodes else None
    return scores
