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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genie_ray.base.errors import cause_of
from genie_ray.base.files import write_atomically
from genie_ray.base.progress import progress_bar
from genie_ray.base.resources import Role, node_resources, require_room
from genie_ray.base.session import LOCAL_LOGICAL_CPUS, RayConfig
from genie_ray.evaluating.action_probe import PROBED_WINDOWS
from genie_ray.evaluating.ceiling import CONTROLLABLE_DB, ceiling_errors
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.familiar import find_familiar, find_unreached
from genie_ray.evaluating.inverse_dynamics import TrainedClassifier, learn_actions, recognition
from genie_ray.evaluating.networks import Networks
from genie_ray.evaluating.predictors import (
    COPY,
    TOKENIZER,
    Checkpoints,
    Guidance,
    Predictor,
    TokenizerAlone,
    gpus_for,
    latent_action_rows,
    load_predictor,
    of_game,
    require_fit,
    resolved,
    tokenizer_rows,
)
from genie_ray.evaluating.published_figures import read_figures
from genie_ray.evaluating.scores import Tally, frame_errors, frame_ssim, full_row, highest_gains
from genie_ray.evaluating.windows import Windows, blackened, evenly_spaced, random_actions, read_batches, window_starts
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.storage.paths import Location, StoredPath, resolve

Facts = dict[str, Tensor]
"""What is known of a game's windows before any model is asked, by name, [W, …]: `seen`, `rare`, `unreached` and
`controllable`."""

PARTS: Mapping[str, tuple[str, bool]] = {"unseen": ("seen", False), "unreached": ("unreached", True)}
"""Windows that have scores of their own, if it is known which they are: the fact, and its value there."""

SIDE_BY_SIDE = 2
"""Models that a local Ray scores at once; more would only compete for its cores."""


def evaluate(
    models: Mapping[str, Checkpoints],
    dataset: Location,
    output: StoredPath,
    config: EvaluationConfig,
    ray_config: RayConfig,
    *,
    train_data: Sequence[Location] = (),
    reached_by: Sequence[Location] = (),
) -> dict[str, Any]:
    """Scores checkpoints on a test dataset, each in its own Ray task (with a GPU, if it needs one and there are any).

    Writes `evaluation.json` (scores per model and game, and over all games) and `film_strips.npz` (uint8 frames:
    `<label>/<game>` and `truth/<game>`, each [windows, T, H, W, C]) to `output`.

    Args:
        models: label → checkpoint directory of a world model, or one for each of the test dataset's games. Each
            different tokenizer is also scored alone.
        train_data: datasets that any of the models was trained on: scores without the windows that these hold bit for
            bit are given too.
        reached_by: play, such as random play: scores on the windows that begin where it never was are given too, as
            `unreached`.

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
    require_fit(models, metadata, config)
    largest = max((node.get("CPU", 0) for node in node_resources()), default=0)
    cpus = max(1, min(LOCAL_LOGICAL_CPUS // SIDE_BY_SIDE, largest))
    gpus = max(gpus_for(paths, config, ray_config) for paths in (None, *models.values()))
    require_room("evaluating", [Role(name="evaluation tasks", cpus=cpus, gpus=gpus)], ray_config)
    train, reached = ([resolve(path) for path in paths] for paths in (train_data, reached_by))
    references = [(COPY, None), *tokenizer_rows(models).items(), *latent_action_rows(models).items()]
    results: dict[str, Result] = {}
    with progress_bar("evaluate", len(references) + len(models)) as bar:
        facts, classifier = _prepare(resolve(dataset), train, reached, config, ray_config)

        def score_all(entries: Sequence[tuple[str, Checkpoints | None]]) -> None:
            task = ray.remote(score)
            pending = {
                task.options(num_cpus=cpus, num_gpus=gpus_for(path, config, ray_config)).remote(
                    label, path and resolved(path), resolve(dataset), config, ray_config, facts, classifier
                ): label
                for label, path in entries
            }
            while pending:
                (finished,), _ = ray.wait(list(pending))
                label = pending.pop(finished)
                results[label] = _outcome(finished)
                bar.update(len(results), scored=label)

        score_all(references)
        for game, ceiling_W in results[TOKENIZER].ceilings.items():
            facts[game]["controllable"] = ceiling_W > CONTROLLABLE_DB
        score_all(list(models.items()))
    document = {
        "protocol": asdict(config),
        "dataset": ReplayDataset(dataset).content_hash(),
        "train_data": [ReplayDataset(path).content_hash() for path in train],
        "inverse_dynamics": classifier and classifier.worth(metadata.action_names),
        "models": {label: results[label].scores for label in (*dict(references), *models)},
        "published": published,
    }
    text = json.dumps(document, indent=1, allow_nan=False)
    output.mkdir(parents=True, exist_ok=True)
    strips: dict[str, Any] = {key: frames for result in results.values() for key, frames in result.film_strips.items()}
    write_atomically(output / "film_strips.npz", lambda path: np.savez_compressed(path, **strips))
    write_atomically(output / "evaluation.json", lambda path: path.write_text(text))
    return document


def _prepare(
    dataset: Location,
    train: Sequence[Location],
    reached: Sequence[Location],
    config: EvaluationConfig,
    ray_config: RayConfig,
) -> tuple[dict[str, Facts], TrainedClassifier | None]:
    """What other play says of each window, by game, and a classifier of actions trained on training data, if any."""
    import ray

    test = ReplayDataset(dataset)
    facts: dict[str, Facts] = {game: {} for game in {episode.game for episode in test.episodes}}
    if reached:
        unreached = ray.remote(find_unreached).remote(dataset, reached, config)
        for game, unreached_W in _outcome(unreached).items():
            facts[game]["unreached"] = torch.tensor(unreached_W)
    if not train:
        return facts, None
    familiar = ray.remote(find_familiar).remote(dataset, train, config)
    learnt = None
    if config.inverse_dynamics.updates:
        threads, actions = ray_config.torch_threads(SIDE_BY_SIDE), len(test.metadata.action_names)
        learnt = ray.remote(learn_actions).remote(train, actions, config, threads)
    for game, known in _outcome(familiar).items():
        facts[game] |= {"seen": torch.tensor(known.seen_W), "rare": torch.tensor(known.rare_WT)}
    return facts, learnt and _outcome(learnt)


def _outcome(reference: Any) -> Any:
    """A Ray task's result; its error is raised with its cause alone."""
    import ray

    try:
        return ray.get(reference)
    except Exception as error:
        raise cause_of(error) from error


@dataclass(frozen=True)
class Result:
    """The result of scoring one row of the table."""

    scores: dict[str, Any]
    film_strips: dict[str, np.ndarray]
    ceilings: dict[str, Tensor]  # of a tokenizer alone, by game: each window's highest possible ΔPSNR at its frame [W]


def score(
    label: str,
    checkpoints: Checkpoints | None,
    path: StoredPath,
    config: EvaluationConfig,
    ray_config: RayConfig,
    facts: Mapping[str, Facts] | None = None,
    classifier: TrainedClassifier | None = None,
) -> Result:
    """Scores one row of the table on every game, in the calling process; `evaluate` calls it in a Ray task.

    Args:
        facts: by game, what else is known of its windows.
        classifier: tells actions from frames.
    """
    torch.set_num_threads(ray_config.torch_threads(SIDE_BY_SIDE))
    dataset = ReplayDataset(path)
    games = sorted({episode.game for episode in dataset.episodes})
    predictor = load_predictor(label, of_game(checkpoints, games[0]), config)
    networks = Networks(config, dataset.metadata.frame_shape[:2], predictor.device)
    asked = [name for name, (fact, _) in PARTS.items() if any(fact in known for known in (facts or {}).values())]
    every, every_part = Tally(), {name: Tally() for name in asked}
    rows: dict[str, Any] = {}
    film_strips: dict[str, np.ndarray] = {}
    ceilings: dict[str, Tensor] = {}
    for game in games:
        if isinstance(checkpoints, Mapping) and game != games[0]:
            predictor = load_predictor(label, checkpoints[game], config)
        tally, parts = Tally(), {name: Tally() for name in asked}
        starts = window_starts(dataset, game, config)
        known = dict((facts or {}).get(game, {}))
        reason = None
        if config.ceiling and isinstance(predictor, TokenizerAlone):
            other_errors, reason = ceiling_errors(dataset, starts, predictor.predict, config)
            known |= {} if other_errors is None else {"random_errors": other_errors}
        shown = set(evenly_spaced(len(starts), config.film_strips))
        probed = set(evenly_spaced(len(starts), PROBED_WINDOWS))
        kept: dict[str, list[np.ndarray]] = {"truth": [], label: []}
        first = 0
        for windows in read_batches(dataset, starts, config):
            batch = slice(first, first + len(windows.starts))
            true_BTHWC = blackened(windows.frames_BTHWC[:, config.prime_frames :], config)
            guidance = predictor.guidance(windows.frames_BTHWC, windows.actions_BT)
            predicted_BTHWC, values = measure(predictor, windows, guidance, networks, config)
            values |= {name: fact[batch] for name, fact in known.items()}
            if classifier is not None:
                values |= recognition(classifier, windows, predicted_BTHWC, config)
            of_truth, of_prediction = networks.features(true_BTHWC), networks.features(predicted_BTHWC)
            features = {name: (of_prediction[name], of_truth[name]) for name in of_truth}
            for name, part in parts.items():
                fact, wanted = PARTS[name]
                part.add(windows.episodes, values, features, only=values[fact] == wanted)
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
        if "random_errors" in known:
            ceilings[game] = highest_gains(tally, config)
            tally.note("controllable", ceilings[game] > CONTROLLABLE_DB)
        film_strips |= {f"{source}/{game}": np.stack(frames) for source, frames in kept.items() if frames}
        rows[game] = full_row(tally, parts, config) | {
            "window_errors": tally.values()["errors"].mean(1).tolist(),
            "window_episodes": tally.episodes,
        }
        if reason is not None:
            rows[game]["no_ceiling"] = reason
        every.merge(tally)
        for name, part in parts.items():
            every_part[name].merge(part)
    rows["all"] = full_row(every, every_part, config)
    return Result(rows, film_strips, ceilings)


def measure(
    predictor: Predictor, windows: Windows, guidance: Guidance, networks: Networks, config: EvaluationConfig
) -> tuple[Tensor, dict[str, Tensor]]:
    """Predicts windows: the frames uint8 [B, T, H, W, C], and measures of them by name, [B, …] (see `Tally`)."""
    frames_BTHWC = windows.frames_BTHWC
    true_BTHWC = blackened(frames_BTHWC[:, config.prime_frames :], config)
    seeds = windows.seeds(config.seed)  # of both rollouts: only the actions differ
    predicted_BTHWC = blackened(predictor.predict(frames_BTHWC, guidance.actions_BT, seeds), config)
    values = {
        "errors": frame_errors(predicted_BTHWC, true_BTHWC),
        "ssim": frame_ssim(predicted_BTHWC, true_BTHWC),
        **networks.distances(predicted_BTHWC, true_BTHWC),
    }
    if predictor.num_actions:
        others = windows.seeds(config.seed, "random")
        others_BT = random_actions(guidance.actions_BT, predictor.num_actions, config, others)
        otherwise_BTHWC = blackened(predictor.predict(frames_BTHWC, others_BT, seeds), config)
        values["random_errors"] = frame_errors(otherwise_BTHWC, true_BTHWC)
    asked = config.prime_frames + config.delta_psnr_frame  # frames up to that of ΔPSNR
    likelihoods = predictor.likelihoods(frames_BTHWC[:, :asked], windows.actions_BT[:, : asked - 1])
    if likelihoods is not None:
        values |= {"nll": likelihoods.nll_BA, "changed": likelihoods.changed_B}
        values["last_action"] = windows.actions_BT[:, asked - 2]
    return predicted_BTHWC, values
