"""A paper's figures, shown below ours in the table. They are on other data: a rough scale, not a comparison.

The file is a CSV with the columns of `COLUMNS`, and perhaps those of `MORE`; figures that the paper does not give are
left empty.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

# keys of the evaluation's rows; PSNR and ΔPSNR are published as means of per-frame values
FIGURES = ("psnr_mean", "ssim", "delta_psnr_mean", "fid")
COLUMNS = ("paper", "test_set", "model", *FIGURES)
MORE = ("table", "suspect", "source")
"""The table of the paper; the figures of the line that are probably misprints, joined by spaces; where they stand."""


def read_figures(path: str) -> list[dict[str, Any]]:
    """One row per published model: its label, and its figures under the keys of the evaluation's rows.

    A label names figures that are suspected to be misprints.

    Raises:
        ValueError: the file is missing or not such a CSV.
    """
    return [
        {"label": "{paper}, {test_set}: {model}".format_map(line) + _doubt(line["suspect"])}
        | {key: line[key] for key in FIGURES}
        for line in read_lines(path)
    ]


def read_lines(path: str) -> list[dict[str, Any]]:
    """The file's lines: texts, and figures as numbers or None.

    Raises:
        ValueError: the file is missing or not such a CSV.
    """
    if not Path(path).is_file():
        raise ValueError(f"evaluation.published_figures = {path!r}: no such file")
    with Path(path).open(newline="") as file:
        lines = list(csv.DictReader(file))
    if not lines or any(tuple(key for key in line if key not in MORE) != COLUMNS for line in lines):
        raise ValueError(f"evaluation.published_figures = {path!r}: not a CSV with the columns {', '.join(COLUMNS)}")
    try:
        found = [
            dict.fromkeys(MORE, "") | line | {key: float(line[key]) if line[key] else None for key in FIGURES}
            for line in lines
        ]
    except ValueError as error:
        raise ValueError(f"evaluation.published_figures = {path!r}: {error}") from error
    for line in found:
        if unknown := sorted(set(line["suspect"].split()) - set(FIGURES)):
            raise ValueError(
                f"evaluation.published_figures = {path!r}: suspect is {unknown[0]!r}; allowed: {', '.join(FIGURES)}"
            )
    return found


def _doubt(suspect: str) -> str:
    return f" (probably misprinted: {', '.join(suspect.split())})" if suspect else ""
