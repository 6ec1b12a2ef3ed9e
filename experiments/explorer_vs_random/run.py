"""Explorers against random play: distinct cells at equal steps, and how new their play is to the world model (Tab. 6).

Reads a YAML file with `seeds`, `base` (settings as in any preset), `explorers` (name → changes; `games` may be fewer
than the base's) and `variants` (name → changes of `base` and `seeds`, and other `explorers`). For each seed, one world
model is trained on random play of all games and then judges every explorer's training, game by game. A trained explorer
plays the same number of steps as random play. Cells are counted for both, and the world model predicts both: the lower
its PSNR, the newer the play. "While learning" compares the play in training with the random play that the world model
learned from, at the largest number of steps that both have.

"Settled" epochs are those that a training warns about, in which play narrows to less than a third
(`exploring.settling`); "breadth kept" is the distinct cells per step of training's last epochs, relative to its widest.

Writes to OUT/seed-N datasets, checkpoints, and one `result.json` for each explorer and game; to OUT, `results.json`,
`results.md` and `results.png` (a variant's are named after it), updated after each result. A repeated run continues and
skips existing results. A variant with an unchanged world model may share OUT.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import yaml

from genie_ray.base.figures import blank_figure
from genie_ray.base.files import write_atomically
from genie_ray.base.metrics_log import read_metrics
from genie_ray.base.progress import console
from genie_ray.base.results import Row, kept_row, markdown
from genie_ray.base.session import ray_session
from genie_ray.base.settings import build, merge, to_dict
from genie_ray.collecting.collection import collect
from genie_ray.collecting.plan import Policy
from genie_ray.config import RunConfig
from genie_ray.evaluating.evaluation import evaluate
from genie_ray.evaluating.predictors import COPY
from genie_ray.exploring.explorers import train_explorers
from genie_ray.games.roms import require_rom
from genie_ray.replay.coverage import coverage_curve
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.training.train import train_world_model

CURVE_POINTS = 100  # of a coverage curve, kept in a result
CURVE_STEPS = 100  # between two points, for play that a world model learned from
BREADTH_EPOCHS = 3  # consecutive ones
COLORS = matplotlib.colormaps["tab10"].colors
MODEL, RANDOM = "world model", "random"


def base_model(config: RunConfig, directory: Path) -> Path:
    """The seed's world model: trained on random play of all games."""
    play, steps = directory / "training-play", config.collection.random_steps
    collect(play, Policy(name=RANDOM), config.games, steps, config.collection, config.env, seed=config.seed)
    return train_world_model(config, play, directory, config.ray)


def train_explorer(config: RunConfig, game: str, world_model: Path, directory: Path) -> Policy:
    """Trains a game's explorer; returns its policy."""
    agents, collection = directory / "agents", config.collection
    for _ in train_explorers(agents, [game], world_model, config):
        pass
    return Policy(
        name="explorer",
        directory=agents,
        epsilon=collection.explorer_epsilon,
        temperature=collection.explorer_temperature,
    )


def cells_by_chance(game: str, play: Path) -> list[dict[str, float]]:
    """Distinct cells after every `CURVE_STEPS` steps of a game's random play, in the format of a training log."""
    dataset = ReplayDataset(play)
    curve = coverage_curve(dataset.read(episode) for episode in dataset.episodes if episode.game == game)
    return [
        {"env_steps": step, "cells": int(curve[step - 1])} for step in range(CURVE_STEPS, len(curve) + 1, CURVE_STEPS)
    ]


def run_cell(name: str, config: RunConfig, game: str, world_model: Path, training_play: Path, directory: Path) -> Row:
    """One explorer (or random play) on one game with one seed; returns at once if its result exists.

    Raises:
        ValueError: the existing result has other settings.
    """
    # A result of random play does not depend on the explorer's settings and rewards.
    free = ("ray.", "exploration.", "reward.") if name == RANDOM else ("ray.",)
    return kept_row(
        directory / "result.json",
        to_dict(config),
        lambda: make_cell(name, config, game, world_model, training_play, directory),
        free=free,
    )


def make_cell(name: str, config: RunConfig, game: str, world_model: Path, training_play: Path, directory: Path) -> Row:
    """Trains the explorer, has it play, and measures that play."""
    begin = time.perf_counter()
    policy = Policy(name=RANDOM) if name == RANDOM else train_explorer(config, game, world_model, directory)
    trained = time.perf_counter()
    play, steps = directory / "play", config.collection.finetune_steps
    # With a seed other than that of the play the world model learned from.
    collect(play, policy, [game], steps, config.collection, config.env, seed=config.seed + 1)
    models = evaluate({MODEL: world_model}, play, directory / "evaluation", config.evaluation, config.ray)["models"]
    dataset = ReplayDataset(play)
    curve = coverage_curve(dataset.read(episode) for episode in dataset.episodes)
    points = np.unique(np.linspace(1, len(curve), CURVE_POINTS).astype(int))
    log = read_metrics(directory / "agents" / game / "metrics.jsonl")
    training = [{key: line[key] for key in ("env_steps", "cells", "reward_mean") if key in line} for line in log]
    return {
        "explorer": name,
        "game": game,
        "seed": config.seed,
        "cells": int(curve[-1]),
        "curve": {"steps": points.tolist(), "cells": curve[points - 1].tolist()},
        "psnr": models[MODEL]["all"]["psnr"],
        **{key: models[MODEL]["all"][key] for key in ("delta_psnr", "delta_psnr_mean")},
        "copy_psnr": models[COPY]["all"]["psnr"],
        "settled_epochs": sum(line.get("settled", 0.0) for line in log),  # warned about
        "breadth_kept": breadth_kept(log),
        "training": cells_by_chance(game, training_play) if name == RANDOM else training,
        "training_seconds": trained - begin,
        "seconds": time.perf_counter() - begin,
    }


def breadth_kept(log: Sequence[Mapping[str, float]]) -> float | None:
    """Distinct cells per step of a training's last epochs, each counted separately, over those of its widest ones."""
    widths = [line["cells_of_epoch_per_step"] for line in log]
    if not widths:
        return None
    averages = [statistics.fmean(widths[max(end - BREADTH_EPOCHS, 0) : end]) for end in range(1, len(widths) + 1)]
    return averages[-1] / max(averages[BREADTH_EPOCHS - 1 :] or averages)


def learning_ratio(row: Row, random: Row) -> float | None:
    """Distinct cells seen in training over those of random play, after the most steps for which both are known."""
    steps, cells = (
        [[line[key] for line in each["training"]] for each in (row, random)] for key in ("env_steps", "cells")
    )
    if not (steps[0] and steps[1]):
        return None
    last = min(steps[0][-1], steps[1][-1])
    return float(np.interp(last, steps[0], cells[0]) / np.interp(last, steps[1], cells[1]))


def spread(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Mean ± standard deviation over seeds."""
    mean = f"{statistics.fmean(values):{sign}.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def of(rows: Sequence[Row], **wanted: Any) -> list[Row]:
    """The rows with these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def table(rows: Sequence[Row]) -> str:
    """A Markdown table for each game. Ratios of cells are taken within a seed, then averaged over seeds."""
    names = list(dict.fromkeys(row["explorer"] for row in rows))
    lines = []
    for game in dict.fromkeys(row["game"] for row in rows):
        random = {row["seed"]: row for row in of(rows, game=game, explorer=RANDOM)}
        shown = [(name, found) for name in names if (found := of(rows, game=game, explorer=name))]
        lines += [f"## {game}", "", markdown([summary(name, found, random) for name, found in shown])]
    return "\n".join(lines)


def summary(name: str, found: Sequence[Row], random: Mapping[int, Row]) -> Row:
    """A line of a game's table: one explorer over all seeds, against random play of the same seed."""
    ratios = [row["cells"] / random[row["seed"]]["cells"] for row in found]
    learning = [ratio for row in found if (ratio := learning_ratio(row, random[row["seed"]])) is not None]
    trained = name != RANDOM
    return {
        "explorer": name,
        "seeds": len(found),
        "cells": spread([row["cells"] for row in found], 0),
        "times random": f"{statistics.fmean(ratios):.2f}",
        "each seed": ", ".join(f"{ratio:.2f}" for ratio in ratios),
        "PSNR": spread([row["psnr"] for row in found], 2),
        "ΔPSNR": spread([row["delta_psnr"] for row in found], 2, "+"),
        "mean of per-frame ΔPSNR": spread([row["delta_psnr_mean"] for row in found], 2, "+"),
        "copying a frame: PSNR": spread([row["copy_psnr"] for row in found], 2),
        "while learning, times random": ", ".join(f"{ratio:.2f}" for ratio in learning) if trained else "",
        "epochs settled": f"{statistics.fmean(row['settled_epochs'] for row in found):.0f}" if trained else "",
        "breadth kept": spread([row["breadth_kept"] for row in found], 2) if trained else "",
    }


def draw(rows: Sequence[Row], path: Path) -> None:
    """Plots each game's cells by step of the trained policies' play (mean and range over seeds) and of training."""
    games = list(dict.fromkeys(row["game"] for row in rows))
    names = list(dict.fromkeys(row["explorer"] for row in rows))
    figure = blank_figure(1 + 4.4 * len(games), 7)
    for (above, below), game in zip(figure.subplots(2, len(games), squeeze=False).T, games, strict=True):
        for index, name in enumerate(names):
            if not (found := of(rows, game=game, explorer=name)):
                continue
            style: dict[str, Any] = {"color": "k", "linestyle": ":"} if name == RANDOM else {"color": COLORS[index - 1]}
            steps = found[0]["curve"]["steps"]
            curves = np.array([row["curve"]["cells"] for row in found])
            above.plot(steps, curves.mean(0), label=name, linewidth=1.4, **style)
            above.fill_between(steps, curves.min(0), curves.max(0), color=style["color"], alpha=0.12, linewidth=0)
            steps = [line["env_steps"] for line in found[0]["training"]]
            seen = np.array([[line["cells"] for line in row["training"]] for row in found])
            below.plot(steps, seen.mean(0), linewidth=1.4, **style)
        above.set(title=game, xlabel="step of play", ylabel="distinct cells")
        below.set(xlabel="step of learning (random: of as much play)")
        below.set(ylabel="distinct cells seen while learning")
        for axes in (above, below):
            axes.grid(alpha=0.25)
    figure.axes[0].legend(fontsize=7, frameon=False)
    write_atomically(path, figure.savefig)


def write_results(rows: Sequence[Row], out: Path, name: str) -> None:
    """Writes all results so far."""
    write_atomically(out / f"{name}.json", lambda path: path.write_text(json.dumps(rows)))
    write_atomically(out / f"{name}.md", lambda path: path.write_text(table(rows)))
    draw(rows, out / f"{name}.png")


def read_configs(path: Path, variant: str | None = None) -> dict[int, dict[str, RunConfig]]:
    """seed → explorer → settings; random play has the base's.

    Raises:
        ValueError: the settings cannot work.
    """
    described: Mapping[str, Any] = yaml.safe_load(path.read_text())
    if variant is not None:
        variants = described.get("variants", {})
        if variant not in variants:
            raise ValueError(f"{path}: variant is {variant!r}; allowed: one of {sorted(variants)}")
        changes = variants[variant]
        described = {**merge(described, changes), "explorers": changes["explorers"]}
    explorers = {RANDOM: {}, **described["explorers"]}
    known = described["base"]["games"]
    for name, changes in explorers.items():
        if not set(changes.get("games", known)) <= set(known):
            raise ValueError(f"{path}: games of {name!r} are {changes['games']}; allowed: some of {known}")
    return {
        seed: {
            name: build(RunConfig, merge(described["base"], {**changes, "seed": seed}))
            for name, changes in explorers.items()
        }
        for seed in described["seeds"]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path, help="YAML file with seeds, base, explorers and variants")
    parser.add_argument("--out", type=Path, required=True, help="directory of the results")
    parser.add_argument(
        "--variant", help="one of the file's variants; `tiny` checks that every part runs, in a minute or two"
    )
    arguments = parser.parse_args()
    configs, out, variant = (
        read_configs(arguments.config, arguments.variant),
        arguments.out.resolve(),
        arguments.variant,
    )
    named = next(iter(configs.values()))
    base = named[RANDOM]
    for game in base.games:
        require_rom(game)
    compared = [
        game for game in base.games if any(game in config.games for name, config in named.items() if name != RANDOM)
    ]
    cells = [
        (seed, name, game)
        for name, config in named.items()
        for seed in configs
        for game in (compared if name == RANDOM else config.games)
    ]
    rows: list[Row] = []
    with ray_session(base.ray):
        for seed, name, game in cells:
            directory = out / f"seed-{seed}"
            world_model = base_model(configs[seed][RANDOM], directory)
            group = directory if variant is None or name == RANDOM else directory / variant
            path = group / re.sub(r"\W+", "-", name) / game
            rows.append(run_cell(name, configs[seed][name], game, world_model, directory / "training-play", path))
            write_results(rows, out, variant or "results")
            done = f"{len(rows)} of {len(cells)}: seed {seed}, {name}, {game}"
            console.print(
                f"{done}: {rows[-1]['cells']:,} cells, {rows[-1]['psnr']:.2f} dB, {rows[-1]['seconds']:.0f} s"
            )
    print(table(rows))


if __name__ == "__main__":
    main()
