"""The report's section on the upscaler: scores against bicubic interpolation, examples, enlarged film strips."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from genie_ray.base.progress import console
from genie_ray.storage.paths import StoredPath
from genie_ray.storage.whole import local_copy

PAPERS_MSE = "paper, on 50,000 pictures of its own games: 0.0047 (31 M parameters), 0.0029 (124 M)"


COLUMNS = {
    "game": "game",
    "pictures": "pictures",
    "bicubic_mse": "MSE, bicubic",
    "upscaler_mse": "MSE, upscaler",
    "bicubic_psnr": "PSNR, bicubic (dB)",
    "upscaler_psnr": "PSNR, upscaler (dB)",
}


def print_upscaling(document: Mapping[str, Any]) -> None:
    """Prints an upscaler's scores on every game, and over all of them."""
    table = Table()
    for key, title in COLUMNS.items():
        table.add_column(title, justify="left" if key == "game" else "right", no_wrap=key == "game")
    for row in score_rows(document):
        table.add_row(*(row[key] for key in COLUMNS))
    console.print(table)
    console.print(f"MSE of pixels in [0, 1]; {PAPERS_MSE}", soft_wrap=True)


def score_rows(document: Mapping[str, Any]) -> list[dict[str, str]]:
    """The table as text: each game, and all games together if there are several."""
    games = {game: row for game, row in document["games"].items() if game != "all" or len(document["games"]) > 2}
    return [
        {"game": "all games" if game == "all" else game, "pictures": str(row["pictures"])}
        | {f"{method}_mse": f"{row[method]['mse']:.5f}" for method in ("bicubic", "upscaler")}
        | {f"{method}_psnr": f"{row[method]['psnr']:.2f}" for method in ("bicubic", "upscaler")}
        for game, row in games.items()
    ]


def upscaling_section(evaluation: StoredPath, labels: Sequence[str]) -> dict[str, Any] | None:
    """The report page's data on an upscaler; None if the directory has no results of one.

    Args:
        evaluation: the directory of the evaluation.
        labels: the world models whose predictions are shown.
    """
    from genie_ray.evaluating.upscaling import SCORES_FILE, STRIPS_FILE

    scores, strips = evaluation / SCORES_FILE, evaluation / STRIPS_FILE
    if not scores.exists() and not strips.exists():
        return None
    document = json.loads(scores.read_text()) if scores.exists() else None
    return {
        "columns": COLUMNS,
        "scores": score_rows(document) if document else [],
        "note": PAPERS_MSE,
        "examples": _examples(evaluation) if document else None,
        "strips": _strips(strips, ["truth", *labels]) if strips.exists() else {},
    }


def _examples(evaluation: StoredPath) -> dict[str, Any] | None:
    """Some pictures with every method, one above the other."""
    from genie_ray.base.figures import film_strip
    from genie_ray.evaluating.upscaling import BICUBIC, PICTURES_FILE, UPSCALER

    with local_copy(evaluation / PICTURES_FILE) as file, np.load(file) as kept:
        if not kept.files:
            return None
        small, true = kept["frames"], kept["true"]
        scale = true.shape[1] // small.shape[1]
        rows = {"frame": small.repeat(scale, axis=1).repeat(scale, axis=2)}
        rows |= {method: kept[method] for method in (BICUBIC, UPSCALER)} | {"truth": true}
    return {"strip": film_strip(list(rows.values())), "rows": list(rows)}


def _strips(path: StoredPath, labels: Sequence[str]) -> dict[str, Any]:
    """Per game, a strip of its first window: the enlarged truth above the enlarged predictions."""
    from genie_ray.base.figures import film_strip

    with local_copy(path) as file, np.load(file) as kept:
        games = [key.removeprefix("truth/") for key in kept.files if key.startswith("truth/")]
        return {
            "frames": kept["frames"].tolist(),
            "rows": list(labels),
            "games": {game: film_strip([kept[f"{label}/{game}"][0] for label in labels]) for game in games},
        }
