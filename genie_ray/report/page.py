"""A run on one page: scores, learning curves, the horizon, film strips, coverage, settings and timings.

The page is one self-contained HTML file. It says plainly whether exploration beat random play on each game.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import yaml

from genie_ray.base.files import STYLE, write_atomically
from genie_ray.base.metrics_log import read_metrics
from genie_ray.base.progress import console
from genie_ray.report.explorers import explorer_section
from genie_ray.report.players import player_section
from genie_ray.report.scores import columns, games_of, notes, print_scores, score_tables, title_of
from genie_ray.report.upscaling import upscaling_section
from genie_ray.report.verdict import verdict
from genie_ray.storage.paths import StoredPath, entries
from genie_ray.storage.whole import local_copy

PACKAGES = ("torch", "ray", "stable-retro", "gymnasium", "numpy", "pyarrow", "vector-quantize-pytorch")


def write_report(run: StoredPath) -> StoredPath:
    """Writes `report.html` into a run directory and returns its path.

    Raises:
        ValueError: the run has no evaluation yet.
    """
    import jinja2

    evaluation, settings = _read(run)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("genie_ray.report", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html.jinja").render(
        style=STYLE.read_text(),
        name=run.resolve().name,
        tables={game: score_tables(evaluation, game) for game in games_of(evaluation)},
        columns=columns(evaluation),
        protocol=evaluation["protocol"],
        verdicts=[verdict(evaluation, game) for game in games_of(evaluation) if game != "all"],
        notes=notes(evaluation),
        horizons=_horizons(evaluation),
        strips=_strips(run, evaluation),
        upscaling=upscaling_section(run / "evaluation", _labels(evaluation)),
        learning=_learning_curves(run, settings["games"]),
        explorers=explorer_section(run),
        players=player_section(run, settings["env"]["max_episode_steps"]),
        coverage=_coverage(run, settings["games"]),
        datasets=_datasets(run),
        timings=_timings(run),
        versions={name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        machine=f"{platform.machine()}, {platform.processor() or platform.system()}",
        settings=yaml.safe_dump(settings, sort_keys=False),
    )
    path = run / "report.html"
    write_atomically(path, lambda temporary: temporary.write_text(page))
    return path


def print_table(run: StoredPath) -> None:
    """Prints a run's table and verdicts."""
    evaluation, _ = _read(run)
    print_scores(evaluation)
    for game in games_of(evaluation):
        if game != "all":
            console.print(verdict(evaluation, game)["text"], soft_wrap=True)


def _read(run: StoredPath) -> tuple[dict[str, Any], dict[str, Any]]:
    scores, settings = run / "evaluation" / "evaluation.json", run / "config.yaml"
    for path in (scores, settings):
        if not path.exists():
            raise ValueError(
                f"{path} is missing: {run} is not a run directory, or its loop has not reached the evaluation"
            )
    return json.loads(scores.read_text()), yaml.safe_load(settings.read_text())


def _horizons(evaluation: Mapping[str, Any]) -> list[str]:
    from genie_ray.base.figures import curves

    plots = []
    titles = {
        "psnr": "PSNR (dB), pooled",
        "ssim": "SSIM",
        "delta_psnr": "ΔPSNR (dB), pooled",
        "delta_psnr_mean": "ΔPSNR (dB), mean of frames",
    }
    for game in games_of(evaluation):
        for key, title in titles.items():
            data = {
                label: (range(1, len(games[game]["curves"][key]) + 1), games[game]["curves"][key])
                for label, games in evaluation["models"].items()
                if key in games[game]["curves"]
            }
            plots.append(curves(data, x="predicted frame", y=title, title=title_of(game)))
    return plots


def _strips(run: StoredPath, evaluation: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Per game, for each kept window: a strip with the truth above the predictions, a clip with all side by side."""
    from genie_ray.base.figures import clip, film_strip

    given = evaluation["protocol"]["prime_frames"]
    labels = _labels(evaluation)
    windows: dict[str, list[dict[str, Any]]] = {}
    with local_copy(run / "evaluation" / "film_strips.npz") as file, np.load(file) as kept:
        for game in (game for game in games_of(evaluation) if game != "all"):
            truth = kept[f"truth/{game}"]
            shown = {label: kept[f"{label}/{game}"] for label in labels}
            windows[game] = [
                {
                    "strip": film_strip([truth[i, given:], *(shown[label][i] for label in labels)]),
                    "clip": clip([truth[i, given:], *(shown[label][i] for label in labels)]),
                    "rows": ["truth", *labels],
                }
                for i in range(len(truth))
            ]
    return windows


def _labels(evaluation: Mapping[str, Any]) -> list[str]:
    """The world models, without the rows that they are compared with."""
    from genie_ray.evaluating.predictors import is_reference

    return [label for label in evaluation["models"] if not is_reference(label)]


def _learning_curves(run: StoredPath, games: Sequence[str]) -> list[str]:
    from genie_ray.base.figures import curves

    plots = []
    tuned = [f"{source}{game}" for source in ("control", "explore") for game in ("", *(f"/{game}" for game in games))]
    of_pictures = ["tokenizer", *(f"decoder/{name}" for name in tuned), "upscaler"]
    of_tokens = ["dynamics", *(f"finetuned/{name}" for name in tuned)]
    of_pictures, of_tokens = (
        [part for part in parts if (run / part / "metrics.jsonl").exists()] for parts in (of_pictures, of_tokens)
    )
    logs = {part: read_metrics(run / part / "metrics.jsonl") for part in (*of_pictures, *of_tokens)}
    for part, lines in logs.items():
        key = "psnr" if part in of_pictures else "loss"
        data = {"training": _series(lines, key), "validation": _series(lines, f"validation_{key}")}
        plots.append(curves(data, x="iteration", y={"psnr": "PSNR (dB)"}.get(key, key), title=part))
    control = {part: _series(logs[part], "validation_nll_gap") for part in of_tokens}
    plots.append(curves(control, x="iteration", y="NLL gap (nats)", title="does the model obey? (validation)"))
    return plots


def _series(lines: list[dict[str, float]], key: str) -> tuple[list[float], list[float]]:
    return [line["iteration"] for line in lines if key in line], [line[key] for line in lines if key in line]


def _coverage(run: StoredPath, games: list[str]) -> dict[str, Any]:
    """Distinct cells over steps: explored play against fresh random play of the same length."""
    from genie_ray.base.figures import curves
    from genie_ray.replay.coverage import coverage_curve
    from genie_ray.replay.dataset import ReplayDataset

    sources = {"explored": ReplayDataset(run / "datasets/explore"), "random": ReplayDataset(run / "datasets/control")}
    plots, rows = [], []
    for game in games:
        found = {
            label: coverage_curve(dataset.read(ref) for ref in dataset.episodes if ref.game == game)
            for label, dataset in sources.items()
        }
        data = {label: (range(1, len(cells) + 1), cells.tolist()) for label, cells in found.items()}
        plots.append(curves(data, x="step", y="distinct cells", title=game))
        explored, random = (int(cells[-1]) for cells in found.values())
        rows.append({"game": game, "explored": explored, "random": random, "ratio": f"{explored / random:.2f}"})
    return {"plots": plots, "rows": rows}


def _datasets(run: StoredPath) -> list[dict[str, Any]]:
    from genie_ray.replay.dataset import ReplayDataset
    from genie_ray.replay.storage import file_size
    from genie_ray.replay.writer import shard_paths

    rows = []
    for path in entries(run / "datasets"):
        dataset = ReplayDataset(path)
        frames = sum(episode.length + 1 for episode in dataset.episodes)
        size = sum(map(file_size, shard_paths(path)))
        rows.append(
            {
                "name": path.name,
                "policy": dataset.metadata.policy,
                "episodes": len(dataset.episodes),
                "frames": frames,
                "bytes": f"{size / frames:.0f}",
            }
        )
    return rows


def _timings(run: StoredPath) -> list[dict[str, Any]]:
    """Seconds of each stage; if it was interrupted, those of its last try."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    starts: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for line in lines:
        if line["event"] == "start":
            starts[line["stage"]] = starts.get(line["stage"], 0) + 1
        else:
            seconds[line["stage"]] = line["seconds"]
    return [{"stage": s, "seconds": f"{seconds[s]:.0f}", "tries": starts[s]} for s in seconds]
