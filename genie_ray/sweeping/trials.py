"""The trials of a sweep on a Ray cluster: what one does, and how Ray Tune runs many.

A trial needs CPUs for itself and its learner (1), for each rollout worker (1, with all its emulators), and for its
replicas of the reward service (reward.cpus each); with rounds, also for their training workers. The first two are in
Tune's placement group; the others belong to Serve and Ray Train, and the number of trials at once is limited to leave
room for them, among all sweeps of the cluster (turns.py). A killed trial resumes from its explorer's last state and
keeps what it has finished. Nothing is restored from Tune: each run gives it the trials that neither have a result nor
were stopped early.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import uuid
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from genie_ray.base.errors import cause_of, one_line
from genie_ray.base.files import write_atomically
from genie_ray.base.metrics_log import read_metrics
from genie_ray.base.progress import console
from genie_ray.collecting.collection import collect
from genie_ray.collecting.plan import Policy
from genie_ray.exploring.explorers import judged_epochs, roles
from genie_ray.exploring.recorder import PLAY
from genie_ray.replay.gather import gather
from genie_ray.rewards.service import remove_services, service_name, start_serve
from genie_ray.sweeping.config import SweepConfig, TrialConfig
from genie_ray.sweeping.measure import measure, measure_gain
from genie_ray.sweeping.plan import Trial
from genie_ray.sweeping.report import MEASURES, RANDOM, RESULT_FILE, STOPPED_FILE, TrialResult, trial_directory
from genie_ray.sweeping.turns import Claim, InTurn, Turns

EPOCH, CELLS = "epoch", "cells"  # of a trial, over its games: the basis of early stopping
TRIFLE = 0.001  # CPUs; a bundle cannot be empty
MAX_FAILURES = 2  # per trial, on a cluster whose nodes come and go


def run_trials(config: SweepConfig, results: Sequence[TrialResult], directory: Path) -> list[str]:
    """Runs the trials that have not ended; returns one line for each that failed. Needs a running Ray."""
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # errors are returned below, and kept in error.txt files
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output cannot be silenced
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # it would make an interrupted sweep look like a finished one
    left = [result.trial for result in results if not result.ended]
    needs = trial_needs(config, left)
    at_once = trials_at_once(config, left, needs)
    with start_serve():
        remove_services(service_name(directory))  # of a run that was killed
        try:
            measure_random_play(config, directory)
            turns = Turns(Claim(name=uuid.uuid4().hex, needs=needs, left=len(left)))
            try:
                errors = _tuner(config, results, directory, at_once, turns).fit().errors
            finally:
                turns.close()
        finally:
            remove_services(service_name(directory))
    # An error that cannot be pickled arrives as the text of its traceback.
    return [error.splitlines()[-1] if isinstance(error, str) else one_line(cause_of(error)) for error in errors]


def trial_needs(config: SweepConfig, trials: Sequence[Trial]) -> dict[str, float]:
    """What the largest of these trials takes, by resource."""
    own = {"CPU": 1, "GPU": int(config.run.ray.use_gpu)}
    return {name: own[name] + max(_needs(trial.run, config)[name] for trial in trials) for name in own}


def trials_at_once(config: SweepConfig, trials: Sequence[Trial], needs: Mapping[str, float]) -> int:
    """How many trials the cluster has room for; prints what one needs.

    Raises:
        ValueError: it has room for none.
    """
    runners = rollout_workers(trials)
    there = ray.cluster_resources()
    room = {name: int(there.get(name, 0) // wanted) for name, wanted in needs.items() if wanted}
    at_once = min(*room.values(), len(trials), config.max_concurrent or len(trials))
    wanted = f"{needs['CPU']:g} CPUs and {needs['GPU']:g} GPUs"
    if not at_once:
        raise ValueError(
            f"a trial needs {wanted}; the cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs"
        )
    console.print(
        f"trials left: {len(trials)}, {at_once} at once; each needs {wanted}: itself and its learner, rollout workers "
        f"({runners}, each with {trials[0].run.exploration.num_envs} emulators), its reward service",
        soft_wrap=True,
    )
    return at_once


def _needs(run: TrialConfig, config: SweepConfig) -> dict[str, float]:
    """What a trial needs besides its own process: to explore, or to fine-tune with its rollout workers reserved."""
    exploring = roles(run, replicas=run.reward.max_replicas or run.reward.replicas)
    needs = {name: sum(role.count * role.resources[name] for role in exploring) for name in ("CPU", "GPU")}
    if config.test is not None:
        workers = run.ray.train_workers
        tuning = {
            "CPU": run.exploration.num_env_runners + workers * run.ray.cpus_per_worker,
            "GPU": workers * int(run.ray.use_gpu),
        }
        needs = {name: max(amount, tuning[name]) for name, amount in needs.items()}
    return needs


def rollout_workers(trials: Iterable[Trial]) -> int:
    """Rollout workers of the trial that has the most."""
    return max(trial.run.exploration.num_env_runners for trial in trials)


def measure_random_play(config: SweepConfig, directory: Path) -> None:
    """Collects and measures random play, of one seed, with which the trials are compared."""
    for name, hold in RANDOM.items():
        path = directory / "random" / name
        if (path / RESULT_FILE).exists():
            continue
        run = config.run
        collection = dataclasses.replace(run.collection, large_frame_every=0)
        policy = Policy(name="random" if hold == 1 else "held", hold=hold)
        # With another seed than the play that the world model may have been trained on.
        collect(path / "play", policy, run.games, run.training_steps, collection, run.env, seed=run.seed + 1)
        task = ray.remote(figures_of).options(num_gpus=int(run.ray.use_gpu))
        try:
            _write_result(path, ray.get(task.remote(path, config, run)))
        except Exception as error:
            raise cause_of(error) from error


def figures_of(path: Path, config: SweepConfig, run: TrialConfig) -> dict[str, Any]:
    """All that is measured of the play in a directory."""
    play, world_model = path / "play", Path(config.world_model)
    figures = measure(play, world_model, run)
    return figures if config.test is None else figures | measure_gain(path, play, world_model, Path(config.test), run)


def trial_results(trial: Trial, config: SweepConfig, directory: Path) -> Generator[dict[str, Any], None, None]:
    """One trial: yields its progress after each epoch, and finally its result.

    Epochs that were saved before an interruption are not repeated.
    """
    run, path = trial.run, trial_directory(directory, trial)
    path.mkdir(parents=True, exist_ok=True)
    app_name = f"{service_name(directory)}-{trial.number:06d}"
    found = 0.0  # cells, by earlier agents
    agents = run.exploration.agents(run.games)
    for index, (name, games) in enumerate(agents.items()):
        before = index * run.exploration.epochs
        explorer = path / "agents" / name
        with judged_epochs(explorer, games, Path(config.world_model), run, app_name=app_name) as epochs:
            for line in epochs:
                yield {EPOCH: before + line["iteration"], CELLS: found + line["cells"]}
        found += read_metrics(explorer / "metrics.jsonl")[-1]["cells"]
    gather(path / "play", [path / "agents" / name / PLAY for name in agents], policy="explorer")
    result = figures_of(path, config, run)
    _write_result(path, result)
    yield {
        EPOCH: trial.epochs,
        CELLS: found,
        "done": True,
        **{name: result[name] for name in MEASURES if name in result},
    }


class ExplorerTrial(tune.Trainable):
    """A trial as Tune sees it. `config` holds its number."""

    def setup(
        self, config: dict[str, Any], *, trials: Mapping[int, Trial], sweep: SweepConfig, directory: Path
    ) -> None:
        self._results = trial_results(trials[config["trial"]], sweep, directory)

    def step(self) -> dict[str, Any]:
        return next(self._results)

    def cleanup(self) -> None:
        self._results.close()


class ContinuedASHA(AsyncHyperBandScheduler):
    """ASHA that knows how far a sweep's trials had got before it was interrupted.

    Trials that had passed a rung stay past it, and count there.
    """

    def __init__(self, config: SweepConfig, results: Sequence[TrialResult]) -> None:
        super().__init__(
            time_attr=EPOCH,
            metric=CELLS,
            mode="max",
            grace_period=config.grace_epochs,
            max_t=results[0].trial.epochs - 1,  # a trial that reaches the last epoch is measured
            reduction_factor=config.reduction_factor,
            stop_last_trials=False,
        )
        self._before = {result.trial.number: result.progress for result in results}
        for result in results:
            if result.ended:
                number = result.trial.number
                self.on_trial_add(None, SimpleNamespace(trial_id=f"ended-{number}", config={"trial": number}))

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)
        for epoch, cells in enumerate(self._before[trial.config["trial"]], start=1):
            self.on_trial_result(tune_controller, trial, {EPOCH: epoch, CELLS: cells})


class Announce(tune.Callback):
    """Prints each trial that ends, and marks those that were stopped early."""

    def __init__(self, results: Sequence[TrialResult], directory: Path) -> None:
        self._trials = {result.trial.number: result.trial for result in results}
        self._ended, self._directory = sum(result.ended for result in results), directory

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number, last = trial.config["trial"], trial.last_result
        if "psnr" in last:
            gain = f", which learned {last['gain']:+.2f} dB" if "gain" in last else ""
            figures = f"{last['coverage']:,} cells, world model {last['psnr']:.2f} dB{gain}"
        else:
            figures = f"stopped after epoch {last[EPOCH]:.0f}, {last[CELLS]:,.0f} cells seen"
            path = trial_directory(self._directory, self._trials[number])
            write_atomically(path / STOPPED_FILE, lambda file: file.write_text(figures))
        self._ended += 1
        console.print(f"trial {number} ended: {figures} ({self._ended} of {len(self._trials)})")


def _tuner(
    config: SweepConfig, results: Sequence[TrialResult], directory: Path, at_once: int, turns: Turns
) -> tune.Tuner:
    """The trials that have not ended, for Tune to run."""
    trials = {result.trial.number: result.trial for result in results if not result.ended}
    own = {"CPU": 1 - TRIFLE, "GPU": int(config.run.ray.use_gpu)}
    # RLlib puts runner i into bundle i, and the evaluation runner, which claims no CPUs, into the one after them.
    bundles = [own, *[{"CPU": 1}] * rollout_workers(trials.values()), {"CPU": TRIFLE}]
    trainable = tune.with_parameters(ExplorerTrial, trials=trials, sweep=config, directory=directory)
    scheduler: TrialScheduler = ContinuedASHA(config, results) if config.early_stopping else FIFOScheduler()
    files = directory / "tune"
    shutil.rmtree(files, ignore_errors=True)
    return tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory(bundles)),
        tune_config=tune.TuneConfig(
            search_alg=InTurn(list(trials), turns),
            num_samples=len(trials),
            scheduler=scheduler,
            max_concurrent_trials=at_once,
        ),
        run_config=tune.RunConfig(
            name=files.name,
            storage_path=str(directory),
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a trial saves its own state
            callbacks=[Announce(results, directory)],
            verbose=0,
        ),
    )


def _write_result(path: Path, result: dict[str, Any]) -> None:
    write_atomically(path / RESULT_FILE, lambda file: file.write_text(json.dumps(result, indent=1)))
