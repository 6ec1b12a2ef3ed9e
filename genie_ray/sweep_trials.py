"""The trials of a sweep on a Ray cluster: what one does, and how Ray Tune runs many.

A trial takes CPUs for itself and its learner (1), for each rollout worker (1, with all its emulators), and for its
replicas of the reward service (reward.cpus each); with rounds, for the workers of their trainings, too. The first two
are Tune's placement group; the others belong to Serve and Ray Train, and the number of trials at once is bounded to
leave room for them. Killed at any point, a trial goes on from its explorer's last state; what it has finished stays.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import ray
import yaml
from ray import serve, tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from genie_ray.collection import Policy, collect
from genie_ray.config import RunConfig, build
from genie_ray.envs.actions import action_names
from genie_ray.errors import cause_of, one_line
from genie_ray.evaluation import score
from genie_ray.exploration import exploration_epochs
from genie_ray.files import write_atomically
from genie_ray.metrics_log import read_metrics
from genie_ray.progress import console
from genie_ray.replay.coverage import coverage_curve
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.rewards.service import replica_gpus, reward_service, start_serve
from genie_ray.sweep_report import RANDOM, RESULT_FILE, read_progress, trial_directory
from genie_ray.sweeps import SweepConfig, Trial, plan_trials

APP_PREFIX = "genie-ray-sweep-"
EPOCH, CELLS = "epoch", "cells"  # of a trial, over its games: what early stopping goes by
TRIFLE = 0.001  # CPUs; a bundle cannot be empty
MAX_FAILURES = 2  # of a trial, on a cluster whose nodes come and go


def run_trials(config: SweepConfig, trials: Sequence[Trial], directory: Path) -> list[str]:
    """Runs what is left of a sweep; returns one line for each trial that failed. Needs a running Ray."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial's error is told below, and kept in its error.txt
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # which cannot be told to be quiet
    at_once = trials_at_once(config, trials)
    with start_serve():
        _remove_services()  # of a sweep that was killed
        try:
            measure_random_play(config, directory)
            results = _tuner(config, trials, directory, at_once).fit()
        finally:
            _remove_services()
    return [one_line(cause_of(error)) for error in results.errors]


def trials_at_once(config: SweepConfig, trials: Sequence[Trial]) -> int:
    """How many trials the cluster has room for; says what one takes.

    Raises:
        ValueError: for none.
    """
    exploration, cluster = config.run.exploration, config.run.ray
    replicas = [(trial.run.reward, trial.run.reward.max_replicas or trial.run.reward.replicas) for trial in trials]
    trainers = cluster.train_workers if any(trial.run.exploration.rounds.every for trial in trials) else 0
    needs = {
        "CPU": 1
        + exploration.num_env_runners
        + max(reward.cpus * count for reward, count in replicas)
        + trainers * cluster.cpus_per_worker,
        "GPU": int(cluster.use_gpu) * (1 + trainers) + max(replica_gpus(reward) * count for reward, count in replicas),
    }
    there = ray.cluster_resources()
    room = {name: int(there.get(name, 0) // wanted) for name, wanted in needs.items() if wanted}
    at_once = min(*room.values(), len(trials), config.max_concurrent or len(trials))
    wanted = f"{needs['CPU']:g} CPUs and {needs['GPU']:g} GPUs"
    if not at_once:
        raise ValueError(
            f"a trial takes {wanted}; the cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
        )
    console.print(
        f"{len(trials)} trials, {at_once} at once; each takes {wanted}: itself and its learner, rollout workers "
        f"({exploration.num_env_runners} with {exploration.learning.num_envs} emulators), its reward service",
        soft_wrap=True,
    )
    return at_once


def measure_random_play(config: SweepConfig, directory: Path) -> None:
    """Collects and measures what the trials are compared with."""
    run, path = config.run, directory / RANDOM
    collect(path / "play", Policy(name="random"), run.games, run.collection.finetune_steps, run.collection, run.env)
    if not (path / RESULT_FILE).exists():
        task = ray.remote(measure).options(num_gpus=int(run.ray.use_gpu))
        _write_result(path, ray.get(task.remote(path / "play", Path(config.world_model), run)))


def measure(play: Path, world_model: Path, run: RunConfig) -> dict[str, Any]:
    """Figures of recorded play: distinct cells, and the PSNR and ΔPSNR of a world model, each by game.

    `coverage` is the cells of all games together; `psnr` is of all games' windows.
    """
    dataset = ReplayDataset(play)
    curves = {
        game: coverage_curve(dataset.read(ref) for ref in dataset.episodes if ref.game == game) for game in run.games
    }
    protocol = dataclasses.replace(run.evaluation, film_strips=0, inception_weights=None, published_figures=None)
    scores = score("world model", world_model, play, protocol, run.ray).scores
    return {
        "coverage": int(sum(curve[-1] for curve in curves.values())),
        "psnr": scores["all"]["psnr"],
        "delta_psnr": scores["all"]["delta_psnr"],
        "games": {
            game: {
                "coverage": int(curves[game][-1]),
                "psnr": scores[game]["psnr"],
                "delta_psnr": scores[game]["delta_psnr"],
            }
            for game in run.games
        },
    }


def trial_results(trial: Trial, world_model: Path, directory: Path) -> Generator[dict[str, Any], None, None]:
    """One trial: yields its progress after each epoch, and at last its result.

    Epochs that were saved before it was cut off are not repeated.
    """
    run, path = trial.run, trial_directory(directory, trial)
    result_file = path / RESULT_FILE
    if not result_file.exists():
        path.mkdir(parents=True, exist_ok=True)
        with reward_service(
            world_model,
            run.reward,
            frame_size=run.env.frame_size,
            action_names=action_names(run.env.action_set),
            state=path / "rewards",
            app_name=f"{APP_PREFIX}{trial.number}",
        ) as rewards:
            found = 0.0  # cells, by the agents before
            for index, (name, games) in enumerate(run.exploration.agents(run.games).items()):
                before = index * run.exploration.epochs
                explorer = path / "agents" / name
                epochs = exploration_epochs(
                    explorer,
                    games,
                    rewards,
                    run.exploration,
                    run.env,
                    world_model=world_model,
                    ray=run.ray,
                    seed=run.seed,
                )
                for line in epochs:
                    yield {EPOCH: before + line["iteration"], CELLS: found + line["cells"]}
                found += read_metrics(explorer / "metrics.jsonl")[-1]["cells"]
        runners = run.exploration.num_env_runners
        collection = dataclasses.replace(run.collection, workers_min=runners, workers_max=runners, large_frame_every=0)
        policy = Policy(
            name="explorer",
            directory=path / "agents",
            epsilon=collection.explorer_epsilon,
            temperature=collection.explorer_temperature,
        )
        collect(path / "play", policy, run.games, collection.finetune_steps, collection, run.env, seed=run.seed)
        _write_result(path, {CELLS: found, **measure(path / "play", world_model, run)})
    result = json.loads(result_file.read_text())
    yield {EPOCH: trial.epochs, "done": True, **{name: value for name, value in result.items() if name != "games"}}


class ExplorerTrial(tune.Trainable):
    """A trial as Tune sees it. `config` holds the sweep's directory and the trial's number."""

    def setup(self, config: dict[str, Any]) -> None:
        directory = Path(config["directory"])
        sweep = read_sweep(directory)
        self._results = trial_results(plan_trials(sweep)[config["trial"]], Path(sweep.world_model), directory)

    def step(self) -> dict[str, Any]:
        return next(self._results)

    def cleanup(self) -> None:
        self._results.close()


class RestorableASHA(AsyncHyperBandScheduler):
    """ASHA that knows, after a restart, what the trials before it had reached: Tune does not keep its scheduler."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)
        if trial.is_finished():
            directory = Path(trial.config["directory"])
            planned = plan_trials(read_sweep(directory))[trial.config["trial"]]
            for epoch, cells in enumerate(read_progress(directory, planned), start=1):
                self.on_trial_result(tune_controller, trial, {EPOCH: epoch, CELLS: cells})


class Announce(tune.Callback):
    """Tells of each trial that ends."""

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        last, ended = trial.last_result, sum(other.is_finished() for other in trials)
        figures = f"after epoch {last[EPOCH]}, {last[CELLS]:,} cells seen"
        if "psnr" in last:
            figures = f"{last['coverage']:,} cells, world model {last['psnr']:.2f} dB"
        console.print(f"trial {trial.config['trial']} ended: {figures} ({ended} of {len(trials)})")


def read_sweep(directory: Path) -> SweepConfig:
    """The sweep that a directory holds."""
    return build(SweepConfig, yaml.safe_load((directory / "sweep.yaml").read_text()))


def _tuner(config: SweepConfig, trials: Sequence[Trial], directory: Path, at_once: int) -> tune.Tuner:
    """Tune's own view of the sweep, new or as it was when it was cut off."""
    exploration = trials[0].run.exploration
    own = {"CPU": 1 - TRIFLE, "GPU": int(config.run.ray.use_gpu)}
    # RLlib puts runner i into bundle i, and that of evaluations, which claims nothing, into the one after the others.
    bundles = [own, *[{"CPU": 1}] * exploration.num_env_runners, {"CPU": TRIFLE}]
    trainable = tune.with_resources(ExplorerTrial, tune.PlacementGroupFactory(bundles))
    state = directory / "tune"
    if tune.Tuner.can_restore(state):
        return tune.Tuner.restore(str(state), trainable, resume_unfinished=True, resume_errored=True)
    scheduler: TrialScheduler = FIFOScheduler()
    if config.early_stopping:
        # Without a cut in the last epoch: whoever gets that far is measured.
        scheduler = RestorableASHA(
            time_attr=EPOCH,
            metric=CELLS,
            mode="max",
            grace_period=config.grace_epochs,
            max_t=trials[0].epochs - 1,
            reduction_factor=config.reduction_factor,
            stop_last_trials=False,
        )
    return tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search([trial.number for trial in trials]), "directory": str(directory)},
        tune_config=tune.TuneConfig(scheduler=scheduler, max_concurrent_trials=at_once),
        run_config=tune.RunConfig(
            name=state.name,
            storage_path=str(directory),
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            callbacks=[Announce()],
            verbose=0,
        ),
    )


def _write_result(path: Path, result: dict[str, Any]) -> None:
    write_atomically(path / RESULT_FILE, lambda file: file.write_text(json.dumps(result, indent=1)))


def _remove_services() -> None:
    for name in serve.status().applications:
        if name.startswith(APP_PREFIX):
            serve.delete(name)
