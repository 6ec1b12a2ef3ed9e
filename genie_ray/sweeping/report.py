"""A sweep's results: a table of its trials, the effect of each parameter, plots of both."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genie_ray.base.files import write_atomically
from genie_ray.base.metrics_log import read_metrics
from genie_ray.base.results import markdown
from genie_ray.sweeping.config import SweepConfig
from genie_ray.sweeping.plan import Trial, short_names, short_value

RANDOM = {"random": 1, "held": 4}
"""Random play that trials are compared with: name → steps for which an action is held. Held play is the fair one."""
RESULT_FILE, STOPPED_FILE = "result.json", "stopped"
MEASURES = {
    "coverage": "distinct cells seen while learning",
    "gain": "gain on test play (dB)",
    "psnr": "world model's PSNR on the play (dB)",
}


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """How far a trial got."""

    trial: Trial
    progress: list[float]  # cells seen so far, after each epoch
    figures: Mapping[str, Any] | None  # of a finished trial; see measure.py
    stopped: bool  # early, by ASHA

    @property
    def ended(self) -> bool:
        return self.stopped or self.figures is not None

    @property
    def state(self) -> str:
        if self.figures is not None:
            return "measured"
        return "stopped early" if self.stopped else "unfinished"


def trial_directory(directory: Path, trial: Trial) -> Path:
    """The directory of a trial's files."""
    return directory / "trials" / f"{trial.number:03d}"


def read_results(directory: Path, trials: Sequence[Trial]) -> list[TrialResult]:
    """The results so far of each trial."""
    results = []
    for trial in trials:
        path, progress = trial_directory(directory, trial), read_progress(directory, trial)
        figures = json.loads((path / RESULT_FILE).read_text()) if (path / RESULT_FILE).exists() else None
        stopped = (path / STOPPED_FILE).exists()
        results.append(TrialResult(trial=trial, progress=progress, figures=figures, stopped=stopped))
    return results


def read_progress(directory: Path, trial: Trial) -> list[float]:
    """Cells that a trial has seen after each epoch, its agents one after another."""
    seen: list[float] = []
    for name in trial.run.exploration.agents(trial.run.games):
        found = seen[-1] if seen else 0.0
        lines = read_metrics(trial_directory(directory, trial) / "agents" / name / "metrics.jsonl")
        seen += [found + line["cells"] for line in lines]
    return seen


def write_report(config: SweepConfig, trials: Sequence[Trial], directory: Path) -> Path:
    """Writes tables and plots into a sweep's directory and returns the Markdown table's path."""
    results = rank(read_results(directory, trials), config.objective)
    random = {name: json.loads((directory / "random" / name / RESULT_FILE).read_text()) for name in RANDOM}
    rows = table_rows(results, random)
    effects = effect_rows(config, results)
    write_atomically(directory / "table.csv", lambda path: _write_csv(path, rows))
    write_atomically(directory / "effects.csv", lambda path: _write_csv(path, effects))
    text = markdown(rows) + "\n" + markdown(effects)
    write_atomically(directory / "table.md", lambda path: path.write_text(text))
    draw_effects(config, results, random, directory / "effects.png")
    draw_trials(results, directory / "trials.png")
    return directory / "table.md"


def rank(results: Sequence[TrialResult], objective: str) -> list[TrialResult]:
    """The best trial first; unfinished ones last, by how many cells they had seen."""
    sign = 1 if objective == "psnr" else -1

    def place(result: TrialResult) -> tuple[bool, float]:
        if result.figures is not None:
            return False, sign * result.figures[objective]
        return True, -result.progress[-1] if result.progress else math.inf

    return sorted(results, key=place)


def table_rows(results: Sequence[TrialResult], random: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per trial and one for each kind of random play, as in table.csv."""
    rows = []
    for result in results:
        trial, figures = result.trial, result.figures or {}
        names = short_names(trial.parameters)
        row: dict[str, Any] = {"trial": trial.number}
        row |= {names[key]: short_value(value) for key, value in trial.parameters.items()}
        row["state"], row["epochs"] = result.state, len(result.progress)
        row["cells while learning"] = int(result.progress[-1]) if result.progress else 0  # also of those stopped early
        rows.append(row | _measured(figures, random["held"]))
    for name, figures in random.items():
        row = dict.fromkeys(rows[0], "") | {"trial": f"random, {name}" if name != "random" else name}
        rows.append(row | {"state": "measured"} | _measured(figures, random["held"]))
    return rows


def _measured(figures: Mapping[str, Any], held: Mapping[str, Any]) -> dict[str, Any]:
    """A row's results; `held` are those of held random play, which has whatever the sweep measures."""
    shown: dict[str, Any] = {
        "cells": figures.get("coverage", ""),
        "times held": f"{figures['coverage'] / held['coverage']:.2f}" if figures else "",
    }
    if held["places"] is not None:
        shown["places"] = figures.get("places", "")
    formats = {
        "gain": "+.2f",
        "delta_psnr_gain": "+.2f",
        "psnr": ".2f",
        "delta_psnr": "+.2f",
        "delta_psnr_mean": "+.2f",
    }
    return shown | {key: f"{figures[key]:{how}}" if figures else "" for key, how in formats.items() if key in held}


def effect_rows(config: SweepConfig, results: Sequence[TrialResult]) -> list[dict[str, Any]]:
    """For each value of each parameter: how many trials had it, and the mean and range of their results.

    With early stopping, only the best trials of a value are measured; the cells that all trials had seen before any
    could be stopped compare values without that selection.
    """
    epoch = config.grace_epochs if config.early_stopping else results[0].trial.epochs
    rows = []
    for key in config.parameters:
        for value, group in group_by(results, key):
            finished = [result.figures for result in group if result.figures is not None]
            seen = [result.progress[epoch - 1] for result in group if len(result.progress) >= epoch]
            row: dict[str, Any] = {"parameter": key, "value": value, "trials": len(group)}
            row[f"all: cells at epoch {epoch}"] = f"{statistics.fmean(seen):.0f}" if seen else ""
            row["measured"] = len(finished)
            for name in MEASURES:
                digits = 0 if name == "coverage" else 2
                values = [figures[name] for figures in finished if name in figures]
                summary = (min(values), statistics.fmean(values), max(values)) if values else ()
                shown = [f"{figure:.{digits}f}" for figure in summary] or [""] * 3
                row |= {f"{name} {which}": figure for which, figure in zip(("min", "mean", "max"), shown, strict=True)}
            rows.append(row)
    return rows


def group_by(results: Sequence[TrialResult], key: str) -> list[tuple[str, list[TrialResult]]]:
    """Groups trials by a parameter's value, in the order of the trials."""
    groups: dict[str, list[TrialResult]] = {}
    for result in sorted(results, key=lambda result: result.trial.number):
        groups.setdefault(json.dumps(result.trial.parameters[key]), []).append(result)
    return [(short_value(group[0].trial.parameters[key]), group) for group in groups.values()]


def draw_effects(
    config: SweepConfig, results: Sequence[TrialResult], random: Mapping[str, Mapping[str, Any]], path: Path
) -> None:
    """A column per parameter: what was measured of every trial against its value, the means, the best trial."""
    from genie_ray.base.figures import blank_figure

    keys = list(config.parameters)
    measures = {name: title for name, title in MEASURES.items() if name in random["held"]}
    figure = blank_figure(1.2 + 3.6 * len(keys), 3 * len(measures))
    grid = figure.subplots(len(measures), len(keys), squeeze=False, sharex="col", sharey="row")
    best = next((result for result in results if result.figures is not None), None)
    for column, key in enumerate(keys):
        groups = group_by(results, key)
        for axes, (name, title) in zip(grid[:, column], measures.items(), strict=True):
            ranged = isinstance(config.parameters[key], Mapping)
            means = []
            for place, (_label, group) in enumerate(groups):
                x = group[0].trial.parameters[key] if ranged else place
                ys = [result.figures[name] for result in group if result.figures is not None]
                axes.scatter([x] * len(ys), ys, s=18, color="C0", alpha=0.7, label="trial" if not place else None)
                if ys:
                    means.append((x, statistics.fmean(ys)))
                if best in group and best is not None and best.figures is not None:
                    axes.scatter([x], [best.figures[name]], s=90, facecolors="none", edgecolors="C3", label="best")
            if not ranged and means:
                axes.plot(*zip(*means, strict=True), color="C0", linewidth=1.3, label="mean")
            axes.axhline(random["random"][name], color="0.5", linestyle=":", label="random play")
            axes.axhline(random["held"][name], color="0.5", linestyle="--", label="random play, held")
            if ranged:
                axes.set_xscale("log" if config.parameters[key].get("log") else "linear")
            else:
                axes.set_xticks(range(len(groups)), [label.replace(" ", "\n") for label, _group in groups])
                axes.margins(x=0.15)
            axes.grid(alpha=0.25)
            if not column:
                axes.set_ylabel(title)
        grid[-1, column].set_xlabel(key)
    grid[0, -1].legend(fontsize=7, frameon=False)
    write_atomically(path, figure.savefig)


def draw_trials(results: Sequence[TrialResult], path: Path) -> None:
    """Cells seen by epoch, for every trial: the best one is labelled, those not measured end in a cross."""
    from genie_ray.base.figures import blank_figure

    figure = blank_figure(7, 4)
    axes = figure.add_subplot()
    for place, result in enumerate(results):
        xs, ys = range(1, len(result.progress) + 1), result.progress
        measured = result.figures is not None
        if measured and not place:
            axes.plot(xs, ys, color="C3", linewidth=2, zorder=3, label=f"best: {result.trial.label}")
            continue
        style: dict[str, Any] = {"color": "C0", "alpha": 0.6} if measured else {"color": "0.6"}
        axes.plot(xs, ys, linewidth=1.1, **style)
        axes.plot(xs[-1:], ys[-1:], "o" if measured else "x", markersize=4, **style)
    axes.set(xlabel="epoch", ylabel="distinct cells seen while learning")
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False)
    write_atomically(path, figure.savefig)


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
