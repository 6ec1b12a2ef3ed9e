"""A sweep: explorers trained side by side under different settings (Ray Tune), compared by what they find.

A trial trains an explorer with the world model as judge, and is measured by figures that do not depend on how its
rewards are scaled: the distinct cells of all that it played, what the world model gains on test play by learning from
it (if there is test play), and the world model's error on it before (the lower the PSNR, the newer the data is to the
model; Savov et al. 2025, Tab. 6). Random play of equal length, held and not, is measured alike.

    OUT/sweep.yaml                 the sweep's settings, and the hash of the world model's weights
    OUT/random/{random,held}/      random play and its figures
    OUT/trials/<number>/           one trial's explorers, their progress, what they played, the world model that learned
                                   from it, and the result, or a mark that it stopped
    OUT/tune/                      Ray Tune's own files; nothing is read from them
    OUT/table.{md,csv}, effects.{csv,png}, trials.png

Every trial has its own reward service: any reward setting may be swept, rewards that learn or remember are kept apart,
and one trial's load or failure does not affect another's. The cost is at least one replica per trial, which counts
towards the trial's resources.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from genie_ray.base.session import ray_session
from genie_ray.base.settings import check_unchanged, keep_settings, to_dict
from genie_ray.exploring.rounds import check_rounds
from genie_ray.games.actions import action_names
from genie_ray.games.roms import require_games
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.rewards.deployment import check_checkpoint
from genie_ray.sweeping.config import SweepConfig
from genie_ray.sweeping.plan import Trial, plan_trials
from genie_ray.sweeping.report import read_results, write_report
from genie_ray.training.config import check_batch_size
from world_model.checkpoint import read_config
from world_model.genie import GenieReduxG

SWEEP_FILE = "sweep.yaml"
FREE = ("run.ray.", "max_concurrent:", "objective:", "world_model:", "test:")
"""What may change when a sweep continues; world model and test play are identified by their hashes, wherever stored."""


def run_sweep(config: SweepConfig, directory: Path) -> Path:
    """Runs what is left of a sweep, starting a local Ray if there is none, and returns its table's path.

    Raises:
        ValueError: settings, games, ROMs or the world model are unusable, the directory holds another sweep, the
            cluster is too small for a trial, or trials failed (the others are in the table).
    """
    directory = directory.resolve()
    test = config.test and str(Path(config.test).resolve())
    config = dataclasses.replace(config, world_model=str(Path(config.world_model).resolve()), test=test)
    trials = plan_trials(config)
    keep_settings(directory, _check(config, trials, directory), file=SWEEP_FILE)
    failed: list[str] = []
    results = read_results(directory, trials)
    if not all(result.ended for result in results):
        with ray_session(config.run.ray):
            from genie_ray.sweeping.trials import run_trials

            failed = run_trials(config, results, directory)
    table = write_report(config, trials, directory)
    if failed:
        raise ValueError(f"{len(failed)} of {len(trials)} trials failed, the same command retries them: {failed[0]}")
    return table


def _check(config: SweepConfig, trials: Sequence[Trial], directory: Path) -> dict[str, Any]:
    """Refuses, before anything starts, what would fail later; returns the settings to save."""
    require_games(config.run.games, "run.games")
    weights = check_checkpoint(
        config.world_model,
        frame_size=config.run.env.frame_size,
        action_names=action_names(config.run.env.action_set),
    )
    for trial in trials:
        check_rounds(trial.run.exploration.rounds, Path(config.world_model), trial.run.ray)
    longest = read_config(GenieReduxG, config.world_model).dynamics.max_frames
    config.run.evaluation.require_horizon(longest, config.world_model, "run.evaluation.")
    steps = {(trial.epochs, trial.steps_per_epoch) for trial in trials}
    if len(steps) > 1:
        shown = ", ".join(f"{epochs} epochs of {length}" for epochs, length in sorted(steps))
        raise ValueError(f"trials have different numbers of steps ({shown}): their results could not be compared")
    if config.early_stopping and config.grace_epochs >= trials[0].epochs:
        raise ValueError(
            f"grace_epochs is {config.grace_epochs}; allowed: less than a trial's {trials[0].epochs} epochs"
        )
    settings = to_dict(config) | {"world_model_sha256": weights}
    if config.test is not None:
        test = ReplayDataset(config.test)
        test.metadata.require_fit(frame_size=config.run.env.frame_size)
        if missing := sorted(set(config.run.games) - {episode.game for episode in test.episodes}):
            raise ValueError(f"test: {config.test} has no play of {missing[0]}")
        for trial in trials:
            for training in (trial.run.tune_decoder, trial.run.finetune):
                check_batch_size(training, trial.run.ray.train_workers)
        settings["test_content"] = test.content_hash()
    check_unchanged(directory, settings, free=FREE, file=SWEEP_FILE, what="a sweep")
    return settings
