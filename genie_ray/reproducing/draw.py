"""A table as a picture: each seed a point, the mean a line, the paper's figure a cross."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genie_ray.base.files import write_atomically

if TYPE_CHECKING:
    from genie_ray.reproducing.plan import Plan, PlannedRow

SHOWN = {"psnr_mean": "PSNR (dB)", "delta_psnr_mean": "ΔPSNR (dB)"}
ROW_HEIGHT, HEAD = 0.3, 0.9  # inches


def draw(plan: Plan, rows: Sequence[tuple[PlannedRow, Mapping[int, Mapping[str, Any]]]], path: Path) -> None:
    """Draws PSNR and ΔPSNR of all rows so far, section under section."""
    from genie_ray.base.figures import blank_figure

    sections = list(dict.fromkeys(row.section for row, _ in rows))
    counts = [sum(row.section == section for row, _ in rows) for section in sections]
    figure = blank_figure(10, sum(HEAD + ROW_HEIGHT * count for count in counts))
    grid = figure.subplots(
        len(sections), len(SHOWN), squeeze=False, gridspec_kw={"height_ratios": [2 + n for n in counts]}
    )
    for section, panels in zip(sections, grid, strict=True):
        of_section = [(row, scores) for row, scores in rows if row.section == section]
        for axes, (key, title) in zip(panels, SHOWN.items(), strict=True):
            for place, (row, scores) in enumerate(of_section):
                values = [one[key] for one in scores.values() if one.get(key) is not None]
                axes.plot(values, [place] * len(values), "o", color="C0", markersize=4)
                if values:
                    axes.plot([statistics.fmean(values)] * 2, [place - 0.3, place + 0.3], color="C0", linewidth=1.5)
                if row.paper is not None and row.paper[key] is not None:
                    axes.plot(row.paper[key], place, "x", color="C3", markersize=6)
            axes.set(yticks=range(len(of_section)), xlabel=title, ylim=(len(of_section) - 0.5, -0.5))
            axes.set_yticklabels([row.label for row, _ in of_section] if axes is panels[0] else [])
            axes.locator_params(axis="x", nbins=6)
            axes.grid(axis="x", alpha=0.25)
        panels[0].set_title(section, loc="left")
    papers = ", × the paper's, on its own games and data" if any(row.paper for row, _ in rows) else ""
    figure.suptitle(f"{plan.name}, scale {plan.scale}: ● a seed, | the mean{papers}", fontsize=9)
    write_atomically(path, figure.savefig)
