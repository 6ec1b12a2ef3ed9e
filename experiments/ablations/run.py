"""Ablations of the world model: trains variants that differ in one choice on the same data and seed, and compares them.

Reads a YAML file with `base` (settings as in any preset), `variants` (name → changes) and `compared_with`, the variant
that the others are compared with over several seeds. Variants with the same tokenizer settings share one tokenizer, and
those that also have the same dynamics settings share one training. Writes to OUT/seed-N the checkpoint and metrics of
every training, `table.json`, `table.md` and `curves.png`, of all variants so far; a repeated run continues, also with
other variants (`--only`). With a second seed, OUT/seeds.md has the means over seeds.

Columns: codes used and perplexity of the codebook on the test data, PSNR of the tokenizer alone, PSNR (pooled) and
SSIM of the prediction, PSNR at frame 4 and the last one, ΔPSNR at both, ΔPSNR where the actions make a difference, how
much likelier the true action makes its frame, and the time per predicted frame (batch 1).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from genie_ray.base.metrics_log import read_metrics
from genie_ray.base.results import Row, kept_row, markdown
from genie_ray.base.session import ray_session
from genie_ray.base.settings import build, load_values, merge, to_dict
from genie_ray.config import RunConfig
from genie_ray.evaluating.evaluation import evaluate
from genie_ray.evaluating.predictors import COPY, TOKENIZER
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.loading.mixture import parse_data
from genie_ray.replay.loading.windows import iter_windows
from genie_ray.training import jobs
from genie_ray.training.train import train
from world_model import checkpoint
from world_model.genie import GenieReduxG

CODE_WINDOWS = 256  # of the test data, to count the use of codes
TIMINGS = 5  # rollouts timed; the median counts


def shared_name(names: Mapping[str, Any], settings: Any) -> str:
    """The first variant with these settings: the others share its training."""
    return next(name for name, other in names.items() if other == settings)


def codebook_use(model: GenieReduxG, test: ReplayDataset, config: RunConfig) -> tuple[int, float]:
    """Codes that occur, and the perplexity of their distribution, over test windows."""
    counts = torch.zeros(model.dynamics.codes)
    frames = config.evaluation.window
    windows = iter_windows(test, split="all", length=frames, stride=frames, batch_size=32, limit=CODE_WINDOWS)
    device = next(model.parameters()).device
    for batch in windows:
        tokens_BTHW = model.tokenizer.encode(batch["frames_BTHWC"].to(device))
        counts += tokens_BTHW.flatten().bincount(minlength=len(counts)).cpu()
    shares = counts / counts.sum()
    return int((counts > 0).sum()), float(torch.special.entr(shares).sum().exp())


def seconds_per_frame(model: GenieReduxG, test: ReplayDataset, config: RunConfig) -> float:
    """Median time per predicted frame of one game."""
    frames = config.evaluation.window
    batch = next(iter_windows(test, split="all", length=frames, stride=frames, batch_size=1))
    device = next(model.parameters()).device
    primes = batch["frames_BTHWC"][:, : config.evaluation.prime_frames].to(device)
    actions = batch["actions_BT"][:, :-1].to(device)
    times = []
    for _ in range(TIMINGS):
        begin = time.perf_counter()
        model.rollout(primes, actions, decoding=config.evaluation.decoding).cpu()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) / config.evaluation.predicted_frames


def run_variants(
    configs: Mapping[str, RunConfig], chosen: Sequence[str], train_data: jobs.Data, test_data: Path, out: Path
) -> list[Row]:
    """The rows of the chosen variants and of those that were made before; what is there is not made again.

    Models that share a tokenizer and are decoded alike are scored together, so the emulator's ceiling is found once.
    """
    tokenizers = {name: (config.tokenizer, config.train_tokenizer) for name, config in configs.items()}
    models = {name: (*tokenizers[name], config.dynamics, config.train_dynamics) for name, config in configs.items()}
    scored = {name: (*tokenizers[name], config.evaluation) for name, config in configs.items()}
    paths = {name: out / "dynamics" / shared_name(models, models[name]) for name in configs}
    settings = {name: to_dict(config) for name, config in configs.items()}
    files = {name: out / "rows" / f"{slug(name)}.json" for name in configs}

    def stored() -> list[Row]:
        there = [name for name in configs if files[name].exists()]
        return [kept_row(files[name], settings[name], dict, free=("ray.",)) for name in there]

    stored()  # which refuses rows of other settings, before anything is trained
    for name in chosen:
        tokenizer = out / "tokenizers" / shared_name(tokenizers, tokenizers[name])
        train(jobs.tokenizer(configs[name], train_data, tokenizer), configs[name].ray)
        train(jobs.dynamics(configs[name], train_data, paths[name], tokenizer=tokenizer / "best"), configs[name].ray)
    pending = [name for name in chosen if not files[name].exists()]
    while pending:
        together = {name: configs[name] for name in pending if scored[name] == scored[pending[0]]}
        found = score_together(together, paths, test_data, out / "evaluation" / slug(pending[0]))
        for name in together:
            kept_row(files[name], settings[name], partial(found.__getitem__, name))
        pending = [name for name in pending if name not in together]
    return stored()


def slug(name: str) -> str:
    """A variant's name as a file's."""
    return re.sub(r"\W+", "-", name).strip("-")


def score_together(
    configs: Mapping[str, RunConfig], paths: Mapping[str, Path], test_data: Path, out: Path
) -> dict[str, Row]:
    """Variant → its row, of variants with one tokenizer and one way of decoding."""
    config = next(iter(configs.values()))
    test, device = ReplayDataset(test_data), "cuda" if config.ray.use_gpu else "cpu"
    found = evaluate({name: paths[name] / "best" for name in configs}, test_data, out, config.evaluation, config.ray)
    rows = {}
    for name in configs:
        model = checkpoint.load_as(GenieReduxG, paths[name] / "best", device)
        used, perplexity = codebook_use(model, test, config)
        rows[name] = {
            "variant": name,
            "dynamics": str(paths[name]),
            "codes_used": used,
            "perplexity": perplexity,
            "tokenizer": found["models"][TOKENIZER]["all"],
            "copy": found["models"][COPY]["all"],
            "prediction": found["models"][name]["all"],
            "games": {game: row for game, row in found["models"][name].items() if game != "all"},
            "seconds_per_frame": seconds_per_frame(model, test, config),
            "decoding": asdict(config.evaluation.decoding),
        }
    return rows


def table(rows: list[Row]) -> str:
    """The rows as Markdown, below the scores of copying the last frame."""
    lines = [
        summary(row["variant"], row["prediction"])
        | {
            "codes used": row["codes_used"],
            "perplexity": f"{row['perplexity']:.0f}",
            "tokenizer PSNR": f"{row['tokenizer']['psnr']:.2f}",
            "ms / frame": f"{1000 * row['seconds_per_frame']:.0f}",
        }
        for row in rows
    ]
    references = {"copy the last frame": rows[0]["copy"], "tokenizer alone; ΔPSNR: the ceiling": rows[0]["tokenizer"]}
    return markdown([*(summary(label, scores) for label, scores in references.items()), *lines])


def summary(variant: str, scores: Mapping[str, Any]) -> Row:
    """A line of the table; columns that only variants have are left empty."""
    curves = scores["curves"]
    deltas = {"delta_psnr": "ΔPSNR", "delta_psnr_mean": "mean of per-frame ΔPSNR"}
    last = len(curves["psnr"])
    controllable = scores.get("controllable", {}).get("delta_psnr")
    return {
        "variant": variant,
        "codes used": "",
        "perplexity": "",
        "tokenizer PSNR": "",
        "PSNR": f"{scores['psnr']:.2f}",
        "SSIM": f"{scores['ssim']:.3f}",
        "PSNR t=4": f"{curves['psnr'][3]:.2f}",
        f"t={last}": f"{curves['psnr'][-1]:.2f}",
        **{
            f"{title} t={frame}": f"{curves[key][frame - 1]:+.2f}" if key in curves else ""
            for key, title in deltas.items()
            for frame in (4, last)
        },
        "on controllable windows": "" if controllable is None else f"{controllable:+.2f}",
        "NLL gap": f"{scores['nll_gap']:.3f}" if "nll_gap" in scores else "",
        "true action likeliest": f"{scores['action_accuracy']:.2f}" if "action_accuracy" in scores else "",
        "ms / frame": "",
    }


def over_seeds(tables: Mapping[int, list[Row]], base: str) -> str:
    """Markdown: each variant's mean over the seeds, and in brackets each seed's difference from the variant `base`.

    Variants that a seed lacks are left out.
    """
    by_seed = [{row["variant"]: measures(row["prediction"]) for row in tables[seed]} for seed in sorted(tables)]
    lines = []
    for name in by_seed[0]:
        if not all(name in rows for rows in by_seed):
            continue
        line: Row = {"variant": name}
        for title, value in by_seed[0][name].items():
            values = [rows[name][title] for rows in by_seed]
            mean = "" if None in values else f"{statistics.mean(values):.2f}"
            gains = (
                [f"{value - rows[base][title]:+.2f}" for value, rows in zip(values, by_seed, strict=True)]
                if mean
                else []
            )
            line[title] = mean if name == base or not mean else f"{mean} ({', '.join(gains)})"
        lines.append(line)
    return markdown(lines)


def measures(scores: Mapping[str, Any]) -> dict[str, float | None]:
    """What variants are compared by."""
    return {
        "PSNR": scores["psnr"],
        "PSNR t=4": scores["curves"]["psnr"][3],
        "ΔPSNR t=4": scores["curves"]["delta_psnr"][3],
        "on controllable windows": scores.get("controllable", {}).get("delta_psnr"),
        "NLL gap": scores.get("nll_gap"),
        "true action likeliest": scores.get("action_accuracy"),
    }


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Plots loss and validation PSNR against training time, PSNR and ΔPSNR over the horizon."""
    figure = Figure(figsize=(13, 8.5), layout="constrained")
    FigureCanvasAgg(figure)
    (loss, validation), (psnr, delta) = figure.subplots(2, 2)
    for index, row in enumerate(rows):
        style: dict[str, Any] = {"color": f"C{index % 10}", "linestyle": "-" if index < 10 else "--", "linewidth": 1.3}
        lines = read_metrics(Path(row["dynamics"]) / "metrics.jsonl")
        seconds = {line["iteration"]: line["trained_seconds"] for line in lines if "trained_seconds" in line}
        for axes, key in ((loss, "loss"), (validation, "validation_prediction_psnr")):
            points = [(seconds[line["iteration"]], line[key]) for line in lines if key in line]
            axes.plot(*zip(*points, strict=True), label=row["variant"], **style)
        curves = row["prediction"]["curves"]
        frames = range(1, len(curves["psnr"]) + 1)
        psnr.plot(frames, curves["psnr"], label=row["variant"], **style)
        delta.plot(frames, curves["delta_psnr"], label=row["variant"], **style)
    psnr.plot(frames, rows[0]["copy"]["curves"]["psnr"], "k:", label="copy the last frame")
    loss.set(xlabel="training time (s)", ylabel="dynamics: training loss", yscale="log")
    validation.set(xlabel="training time (s)", ylabel="validation PSNR (dB), greedy, 1 step a frame")
    psnr.set(xlabel="predicted frame", ylabel="PSNR (dB)")
    delta.set(xlabel="predicted frame", ylabel="ΔPSNR (dB)")
    for axes in (loss, validation, psnr, delta):
        axes.grid(alpha=0.25)
    psnr.legend(fontsize=7, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("variants", type=Path, help="YAML file with base and variants")
    parser.add_argument(
        "--train", action="append", required=True, metavar="DIR[:WEIGHT]", help="replay dataset to train on; repeatable"
    )
    parser.add_argument("--test", type=Path, required=True, help="replay dataset to evaluate on")
    parser.add_argument("--out", type=Path, required=True, help="directory of the results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", metavar="VARIANT", help="repeatable; default: all")
    parser.add_argument("-c", "--config", action="append", type=Path, help="preset laid over the base; repeatable")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the base, for all variants")
    arguments = parser.parse_intermixed_args()  # overrides may stand after options
    try:
        described = yaml.safe_load(arguments.variants.read_text())
        reference = described["compared_with"]
        base = merge(described["base"], load_values(arguments.config, arguments.overrides))
        configs = {
            name: build(RunConfig, merge(base, {**changes, "seed": arguments.seed}))
            for name, changes in described["variants"].items()
        }
    except KeyError as error:
        parser.error(f"{arguments.variants} has no {error.args[0]!r}; needed: base, compared_with and variants")
    except (ValueError, OSError, yaml.YAMLError) as error:
        parser.error(str(error))
    if arguments.only and (unknown := sorted(set(arguments.only) - set(configs))):
        parser.error(f"--only {unknown[0]}: must be one of {', '.join(configs)}")
    chosen = [name for name in configs if not arguments.only or name in (reference, *arguments.only)]
    out = arguments.out.resolve() / f"seed-{arguments.seed}"
    train_data = tuple(parse_data(text) for text in arguments.train)
    with ray_session(next(iter(configs.values())).ray):
        rows = run_variants(configs, chosen, train_data, arguments.test.resolve(), out)
    (out / "table.json").write_text(json.dumps(rows, indent=1))
    (out / "table.md").write_text(table(rows))
    draw(rows, out / "curves.png")
    print(table(rows))
    found = {path.parent.name.removeprefix("seed-"): path for path in out.parent.glob("seed-*/table.json")}
    if len(found) > 1:
        tables = {int(seed): json.loads(path.read_text()) for seed, path in found.items()}
        text = over_seeds(tables, reference)
        (out.parent / "seeds.md").write_text(text)
        print(f"Means over seeds {sorted(tables)}; in brackets each seed's difference from {reference!r}:\n\n{text}")


if __name__ == "__main__":
    main()
