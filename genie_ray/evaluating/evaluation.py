"""How well world models predict and follow actions: PSNR, SSIM, FID and ΔPSNR over the horizon, beside copying a frame.

Protocol (paper, section 5): windows of a test dataset that no model was trained on; the first 2 frames and all actions
are given, 10 frames are predicted. ΔPSNR (Genie, section 3) compares that prediction with one under random actions,
decoded the same way.
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
from genie_ray.base.seeding import seed_of, seeded_generator
from genie_ray.base.session import LOCAL_LOGICAL_CPUS, RayConfig
from genie_ray.evaluating import scores
from genie_ray.evaluating.action_probe import PROBED_WINDOWS, ProbeSamples
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.predictors import COPY, load_predictor, tokenizer_rows
from genie_ray.evaluating.published_figures import read_figures
from genie_ray.replay.dataset import EpisodeRef, ReplayDataset
from world_model.checkpoint import WorldModel, read_config
from world_model.genie import GenieReduxConfig

SIDE_BY_SIDE = 2
"""Models that a local Ray scores at once; more would only compete for its cores."""


def evaluate(
    models: Mapping[str, Path], dataset: Path, output: Path, config: EvaluationConfig, ray_config: RayConfig
) -> dict[str, Any]:
    """Scores checkpoints on a test dataset, each in its own Ray task (with a GPU, if the config says so).

    Writes `evaluation.json` (scores per model and game, and over all games) and `film_strips.npz` (uint8 frames:
    `<label>/<game>` and `truth/<game>`, each [windows, T, H, W, C]) to `output`.

    Args:
        models: label → checkpoint directory of a world model. Each different tokenizer is also scored alone.

    Returns:
        The contents of evaluation.json.

    Raises:
        ValueError: the dataset has no window of that length, or a checkpoint does not fit it.
    """
    import ray

    if config.inception_weights is not None:
        scores.load_inception(config.inception_weights)  # refuses a wrong file before anything starts
    published = read_figures(config.published_figures) if config.published_figures is not None else []
    metadata = ReplayDataset(dataset).metadata
    for checkpoint in models.values():
        model = read_config(WorldModel, checkpoint)
        num_actions, longest = model.dynamics.num_actions, model.dynamics.max_frames
        if isinstance(model, GenieReduxConfig):  # infers its own actions, from the whole window
            num_actions = None
        metadata.require_fit(frame_size=model.tokenizer.frame_size, num_actions=num_actions)
        if config.window > longest:
            raise ValueError(
                f"prime_frames + predicted_frames = {config.window}: {checkpoint} takes at most {longest} frames"
            )
    entries: list[tuple[str, Path | None]] = [(COPY, None), *tokenizer_rows(models).items(), *models.items()]
    task = ray.remote(score).options(num_cpus=LOCAL_LOGICAL_CPUS // SIDE_BY_SIDE, num_gpus=int(ray_config.use_gpu))
    pending = {
        task.remote(label, path and path.resolve(), dataset.resolve(), config, ray_config): label
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
        "models": {label: results[label].scores for label, _ in entries},
        "published": published,
    }
    output.mkdir(parents=True, exist_ok=True)
    strips = {key: frames for result in results.values() for key, frames in result.film_strips.items()}
    write_atomically(output / "film_strips.npz", lambda path: np.savez_compressed(path, **strips))
    write_atomically(output / "evaluation.json", lambda path: path.write_text(json.dumps(document, indent=1)))
    return document


@dataclass(frozen=True)
class Result:
    """The result of scoring one row of the table."""

    scores: dict[str, Any]
    film_strips: dict[str, np.ndarray]


def score(label: str, checkpoint: Path | None, path: Path, config: EvaluationConfig, ray_config: RayConfig) -> Result:
    """Scores one row of the table on every game, in the calling process; `evaluate` calls it in a Ray task."""
    torch.set_num_threads(ray_config.torch_threads(SIDE_BY_SIDE))
    dataset = ReplayDataset(path)
    predictor = load_predictor(label, checkpoint, config)
    device, predict = predictor.device, predictor.predict
    all_given, all_random = (scores.HorizonScores(config.predicted_frames) for _ in range(2))
    all_samples = ProbeSamples()
    fid = None
    if config.inception_weights is not None:
        fid = scores.FrechetDistance(scores.load_inception(config.inception_weights), device)
    rows: dict[str, Any] = {}
    film_strips: dict[str, np.ndarray] = {}
    for game in sorted({episode.game for episode in dataset.episodes}):
        given, random = (scores.HorizonScores(config.predicted_frames) for _ in range(2))
        samples = ProbeSamples()
        starts = window_starts(dataset, game, config)
        shown = set(evenly_spaced(len(starts), config.film_strips))
        probed = set(evenly_spaced(len(starts), PROBED_WINDOWS))
        kept: dict[str, list[np.ndarray]] = {"truth": [], label: []}
        for first in range(0, len(starts), config.batch_size):
            frames_BTHWC, actions_BT = read_windows(dataset, starts[first : first + config.batch_size], config)
            true_BTHWC = frames_BTHWC[:, config.prime_frames :]
            guidance = predictor.guidance(frames_BTHWC, actions_BT)
            predicted_BTHWC = predict(frames_BTHWC, guidance.actions_BT, seed_of(config.seed, game, first))
            given.add(predicted_BTHWC, true_BTHWC)
            if fid is not None:
                fid.add(predicted_BTHWC.to(device), true_BTHWC.to(device))
            if predictor.num_actions:
                seed = seed_of(config.seed, game, first, "random")
                others_BT = random_actions(guidance.actions_BT, predictor.num_actions, config, seed)
                random.add(predict(frames_BTHWC, others_BT, seed_of(config.seed, game, first)), true_BTHWC)
            if guidance.vectors_BTD is not None:
                picks = [index for index in range(len(actions_BT)) if first + index in probed]
                episodes = [starts[first + index][0].episode_id for index in picks]
                samples.add(guidance.actions_BT[picks], guidance.vectors_BTD[picks], actions_BT[picks], episodes)
            for index in shown.intersection(range(first, first + len(frames_BTHWC))):
                kept["truth"].append(frames_BTHWC[index - first].numpy())
                kept[label].append(predicted_BTHWC[index - first].numpy())
        film_strips |= {f"{source}/{game}": np.stack(frames) for source, frames in kept.items() if frames}
        rows[game] = _row(given, random, samples, config) | {
            "window_errors": given.window_errors,
            "window_episodes": [episode.episode_id for episode, _ in starts],
        }
        all_given.merge(given)
        all_random.merge(random)
        all_samples.merge(samples)
    rows["all"] = _row(all_given, all_random, all_samples, config) | {"fid": fid and fid.value()}
    return Result(scores=rows, film_strips=film_strips)


def window_starts(dataset: ReplayDataset, game: str, config: EvaluationConfig) -> list[tuple[EpisodeRef, int]]:
    """Episode and first frame of each window of a game; windows never leave their episode.

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


def read_windows(
    dataset: ReplayDataset, starts: Sequence[tuple[EpisodeRef, int]], config: EvaluationConfig
) -> tuple[Tensor, Tensor]:
    """The windows as uint8 frames [B, T, H, W, 3] and the int64 actions between them [B, T−1]."""
    frames, actions = [], []
    for reference, start in starts:
        episode = dataset.read(reference)
        frames.append(episode.frames[start : start + config.window])
        actions.append(episode.actions[start : start + config.window - 1])
    return torch.from_numpy(np.stack(frames)), torch.from_numpy(np.stack(actions).astype(np.int64))


def random_actions(actions_BT: Tensor, num_actions: int, config: EvaluationConfig, seed: int) -> Tensor:
    """The actions that ΔPSNR compares with: all random, or only the one that leads to its frame changed."""
    generator = seeded_generator("cpu", seed)
    if config.random_actions == "all":
        return torch.randint(num_actions, actions_BT.shape, generator=generator)
    others_BT = actions_BT.clone()
    last = config.prime_frames + config.delta_psnr_frame - 2
    shift_B = torch.randint(1, num_actions, (len(actions_BT),), generator=generator)
    others_BT[:, last] = (actions_BT[:, last] + shift_B) % num_actions
    return others_BT


def _row(
    given: scores.HorizonScores, random: scores.HorizonScores, samples: ProbeSamples, config: EvaluationConfig
) -> dict[str, Any]:
    """One model's scores on one game: over all predicted frames, as curves, ΔPSNR at its frame, action probes."""
    curves, probe = given.curves(), samples.probe()
    row: dict[str, Any] = {**given.summary(), "windows": given.windows, "curves": curves}
    row |= {f"probe_{name}": value for name, value in asdict(probe).items()} if probe else {}
    if not random.windows:
        return row | {"delta_psnr": None, "delta_psnr_mean": None}
    for key in ("psnr", "psnr_mean"):
        pairs = zip(curves[key], random.curves()[key], strict=True)
        curves[f"delta_{key}"] = [true - other for true, other in pairs]
        row[f"delta_{key}"] = curves[f"delta_{key}"][config.delta_psnr_frame - 1]
    return row
