"""Sweeps: explorers trained side by side under different settings (Ray Tune), compared by what they find.

A trial trains an explorer with a frozen world model as judge, lets it play, and is measured by two figures that do not
depend on how its rewards are scaled: the distinct cells of that play, and the world model's error on it (the lower the
PSNR, the newer the data is to the model; Savov et al. 2025, Tab. 6). Random play of equal length stands beside.

    OUT/sweep.yaml                 the sweep as it was asked for
    OUT/world_model.sha256         which weights judge
    OUT/random/                    random play and its figures
    OUT/trials/<number>/           explorers and their progress, play and result of one trial, or that it was stopped
    OUT/tune/                      Ray Tune's own files; nothing is read from them
    OUT/table.{md,csv}, effects.{csv,png}, trials.png

Every trial has a reward service of its own: any reward setting may be swept, rewards that learn or remember stay apart,
and one trial's load or failure is no other's. What that costs is one replica a trial, which counts as part of it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from genie_ray.base.files import write_atomically
from genie_ray.config import RunConfig, build, differences, load_values, merge, to_dict
from policies.checks import check_at_least

SWEPT = ("reward.", "exploration.", "collection.explorer_epsilon", "collection.explorer_temperature", "seed")
"""What has a say in a trial."""

WEIGHTS_FILE = "world_model.sha256"


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A sweep: the cross product of all lists, each point of it `samples` times.

    Each sample has ranges drawn anew and, unless seeds are swept, a seed of its own: `run.seed`, `run.seed` + 1, ...
    """

    world_model: str  # checkpoint directory: the judge, and whose error is measured
    # Dotted key → list of values, or a range {low:, high:} or {low:, high:, log: true}. A value may be a mapping: then
    # it changes the settings below its key together.
    parameters: dict[str, Any]
    run: RunConfig = field(default_factory=RunConfig)  # what all trials have in common; plays collection.finetune_steps
    samples: int = 1
    objective: Literal["coverage", "psnr"] = "coverage"  # by which the trials are ranked; PSNR: the lower, the better
    # ASHA (Li et al. 2020), by the cells seen so far: of those that get to an epoch grace · factorⁿ, the best 1/factor
    # go on. The factor is theirs.
    early_stopping: bool = True
    grace_epochs: int = 20
    reduction_factor: float = 4.0
    max_concurrent: int | None = None  # trials at once, at most; None: as many as the cluster has room for
    seed: int = 0  # of what is drawn from ranges

    def __post_init__(self) -> None:
        check_at_least(1, self, "samples", "grace_epochs")
        if self.max_concurrent is not None:
            check_at_least(1, self, "max_concurrent")
        if self.reduction_factor <= 1:
            raise ValueError(f"reduction_factor is {self.reduction_factor}; allowed: above 1")
        if not self.parameters:
            raise ValueError("parameters is empty: name at least one key and its values")
        for key, values in self.parameters.items():
            if not key.startswith(SWEPT):
                raise ValueError(f"parameters: {key} has no say in a trial; allowed: {', '.join(SWEPT)}")
            _check_values(key, values)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point of a sweep."""

    number: int
    parameters: dict[str, Any]  # dotted key → value
    run: RunConfig

    @property
    def label(self) -> str:
        """The parameters in short."""
        names = short_names(self.parameters)
        return ", ".join(f"{names[key]} {short_value(value)}" for key, value in self.parameters.items())

    @property
    def epochs(self) -> int:
        """Epochs of all its agents, one after the other."""
        return self.run.exploration.epochs * len(self.run.exploration.agents(self.run.games))

    @property
    def steps_per_epoch(self) -> int:
        """Environment steps of an epoch, over all environments."""
        exploration = self.run.exploration
        return exploration.num_env_runners * exploration.learning.num_envs * exploration.learning.steps_per_epoch


def load_sweep(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Reads a sweep and applies overrides, as in `run.exploration.epochs=50` or `samples=3`.

    Raises:
        ValueError: one line; a key or value that is wrong.
    """
    values = load_values(path, overrides)
    for key in ("world_model", "parameters"):
        if key not in values:
            raise ValueError(f"{path}: {key} is missing")
    return build(SweepConfig, values)


def plan_trials(config: SweepConfig) -> list[Trial]:
    """All trials of a sweep, the same whenever it is called.

    Raises:
        ValueError: a trial's settings are refused.
    """
    rng = np.random.default_rng(config.seed)
    lists = {key: values for key, values in config.parameters.items() if isinstance(values, list)}
    base = to_dict(config.run)
    trials: list[Trial] = []
    for point in itertools.product(*lists.values()):
        for sample in range(config.samples):
            chosen = dict(zip(lists, point, strict=True))
            parameters = {
                key: chosen[key] if key in chosen else _draw(values, rng) for key, values in config.parameters.items()
            }
            settings = merge(base, {"seed": config.run.seed + sample})
            for key, value in parameters.items():
                settings = merge(settings, _nested(key, value))
            number = len(trials)
            try:
                run = build(RunConfig, settings)
            except ValueError as error:
                raise ValueError(f"trial {number}: {error}") from None
            trials.append(Trial(number=number, parameters=parameters, run=run))
    return trials


def run_sweep(config: SweepConfig, directory: Path) -> Path:
    """Runs what is left to do of a sweep, in a Ray of its own if there is none, and returns its table's path.

    Raises:
        ValueError: settings, games, ROMs or the world model do not do, the directory holds another sweep, or the
            cluster is too small for a trial; or trials failed, and the others are in the table.
    """
    directory = directory.resolve()
    config = dataclasses.replace(config, world_model=str(Path(config.world_model).resolve()))
    trials = plan_trials(config)
    weights = _check(config, trials, directory)
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / WEIGHTS_FILE, lambda path: path.write_text(weights))
    text = yaml.safe_dump(to_dict(config), sort_keys=False)
    write_atomically(directory / "sweep.yaml", lambda path: path.write_text(text))

    from genie_ray.base.session import ray_session
    from genie_ray.sweeping.report import read_results, write_report

    failed: list[str] = []
    results = read_results(directory, trials)
    if not all(result.ended for result in results):
        with ray_session(config.run.ray):
            from genie_ray.sweeping.trials import run_trials

            failed = run_trials(config, results, directory)
    table = write_report(config, trials, directory)
    if failed:
        raise ValueError(f"{len(failed)} of {len(trials)} trials failed, the same command tries again: {failed[0]}")
    return table


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Dotted key → its last part, or the whole of it where the last parts of several are the same."""
    last = {key: key.rpartition(".")[2] for key in keys}
    counts = Counter(last.values())
    return {key: name if counts[name] == 1 else key for key, name in last.items()}


def short_value(value: Any) -> str:
    """A parameter's value on few characters."""
    if isinstance(value, Mapping):
        return " ".join(f"{key}={short_value(item)}" for key, item in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _check(config: SweepConfig, trials: Sequence[Trial], directory: Path) -> str:
    """Refuses what would fail later, before anything starts; returns the world model's hash."""
    from genie_ray.exploring.rounds import check_rounds
    from genie_ray.games.actions import action_names
    from genie_ray.games.roms import require_rom, resolve_game
    from genie_ray.rewards.service import check_checkpoint
    from world_model.checkpoint import read_config
    from world_model.genie import GenieReduxG

    for game in config.run.games:
        if resolve_game(game) != game:
            raise ValueError(f"run.games: {game!r} must be written in full, as {resolve_game(game)!r}")
        require_rom(game)
    weights = check_checkpoint(
        config.world_model,
        frame_size=config.run.env.frame_size,
        action_names=action_names(config.run.env.action_set),
    )
    for trial in trials:
        check_rounds(trial.run.exploration.rounds, Path(config.world_model), trial.run.ray)
    longest = read_config(GenieReduxG, config.world_model).dynamics.max_frames
    if config.run.evaluation.window > longest:
        raise ValueError(
            f"run.evaluation.prime_frames + predicted_frames = {config.run.evaluation.window}: {config.world_model} "
            f"takes at most {longest} frames"
        )
    steps = {(trial.epochs, trial.steps_per_epoch) for trial in trials}
    if len(steps) > 1:
        shown = ", ".join(f"{epochs} epochs of {length}" for epochs, length in sorted(steps))
        raise ValueError(f"trials have different numbers of steps ({shown}): what they find could not be compared")
    if config.early_stopping and config.grace_epochs >= trials[0].epochs:
        raise ValueError(
            f"grace_epochs is {config.grace_epochs}; allowed: less than a trial's {trials[0].epochs} epochs"
        )
    saved = directory / "sweep.yaml"
    if saved.exists():
        before = yaml.safe_load(saved.read_text())
        changed = differences(before, to_dict(config))
        changed = [line for line in changed if not line.startswith(("run.ray.", "max_concurrent", "objective"))]
        if changed:
            raise ValueError(f"{directory} holds another sweep ({'; '.join(changed[:3])}): give another --out")
    judged = directory / WEIGHTS_FILE
    if judged.exists() and judged.read_text() != weights:
        raise ValueError(
            f"{directory} holds trials that another world model judged: {config.world_model} was made anew since; give "
            "another --out"
        )
    return weights


def _check_values(key: str, values: Any) -> None:
    if isinstance(values, list):
        if not values:
            raise ValueError(f"parameters: {key} has no values")
        return
    if not isinstance(values, Mapping) or not {"low", "high"} <= values.keys() <= {"low", "high", "log"}:
        raise ValueError(f"parameters: {key} is {values!r}; allowed: a list, or a range {{low:, high:, log:}}")
    low, high = values["low"], values["high"]
    if not all(isinstance(end, (int, float)) for end in (low, high)) or not low < high:
        raise ValueError(f"parameters: {key} ranges from {low} to {high}; allowed: numbers, the lower one first")
    if values.get("log") and low <= 0:
        raise ValueError(f"parameters: {key} ranges from {low}; allowed with log: above 0")


def _draw(values: Mapping[str, Any], rng: np.random.Generator) -> float | int:
    """A value out of a range, both ends included where both are whole numbers."""
    low, high = values["low"], values["high"]
    whole = isinstance(low, int) and isinstance(high, int)
    if values.get("log"):
        value = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        return round(value) if whole else value
    return int(rng.integers(low, high, endpoint=True)) if whole else float(rng.uniform(low, high))


def _nested(key: str, value: Any) -> dict[str, Any]:
    """A dotted key and its value as nested settings."""
    first, _, rest = key.partition(".")
    return {first: _nested(rest, value) if rest else value}
