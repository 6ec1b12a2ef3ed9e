"""The comparison's figure: PSNR over the horizon, and each seed's difference from the arm compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from experiments.claim.plan import AT, Plan
from experiments.claim.table import PARTS, by_seed, differences
from genie_ray.base.figures import blank_figure
from genie_ray.base.files import write_atomically
from genie_ray.base.results import Row
from genie_ray.evaluating.predictors import COPY

COLORS = matplotlib.colormaps["tab10"].colors


def draw(rows: Mapping[str, Sequence[Row]], plan: Plan, path: Path) -> None:
    """A column for each game: curves over all windows and over those that random play does not reach, and differences.

    Curves are means over seeds; the cross is what copying the last given frame scores. In the last row a dot is a seed.
    """
    figure = blank_figure(2 + 4.2 * len(rows), 10)
    for column, (game, of_game) in zip(figure.subplots(3, len(rows), squeeze=False).T, rows.items(), strict=True):
        for axes, part in zip(column[:2], PARTS, strict=True):
            _curves(axes, of_game, plan, part)
        column[0].set_title(f"{game}\n{PARTS['all']}", fontsize=9, loc="left")
        _dots(column[2], of_game, plan)
    figure.axes[0].legend(fontsize=7, frameon=False)
    write_atomically(path, figure.savefig)


def _curves(axes: Any, rows: Sequence[Row], plan: Plan, part: str) -> None:
    for index, arm in enumerate(plan.arms):
        curves = [curve for curve in by_seed(rows, arm, "curves", part).values() if curve is not None]
        if curves:
            mean_T = np.mean(curves, axis=0)
            style = {"linestyle": "--", "linewidth": 2.0} if arm == plan.compared_with else {"linewidth": 1.3}
            axes.plot(range(1, len(mean_T) + 1), mean_T, color=COLORS[index % 10], label=arm, **style)
    copies = [row["references"][COPY][part][f"PSNR t={AT}"] for row in rows if COPY in row["references"]]
    if known := [copied for copied in copies if copied is not None]:
        axes.plot(AT, np.mean(known), "kx", markersize=5, label=COPY)
    if not axes.lines:
        axes.text(0.5, 0.5, "there are none", ha="center", transform=axes.transAxes)
    axes.set(xlabel="predicted frame", ylabel="PSNR (dB)")
    axes.set_title(PARTS[part], fontsize=9, loc="left")
    axes.grid(alpha=0.25)


def _dots(axes: Any, rows: Sequence[Row], plan: Plan) -> None:
    title = f"PSNR t={AT}"
    others = by_seed(rows, plan.compared_with, "all", title)
    made = [arm for arm in plan.arms if any(arm in row["arms"] for row in rows)]
    for place, arm in enumerate(made):
        index = plan.arms.index(arm)
        gains = list(differences(by_seed(rows, arm, "all", title), others).values())
        axes.plot(gains, [place] * len(gains), "o", color=COLORS[index % 10], markersize=4, alpha=0.7)
        if gains:
            axes.plot(np.mean(gains), place, "|", color=COLORS[index % 10], markersize=14)
    axes.axvline(0, color="k", linewidth=0.8)
    axes.set_yticks(range(len(made)), made, fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel=f"{title}, minus {plan.compared_with} (dB); a dot is a seed")
    axes.grid(alpha=0.25, axis="x")
