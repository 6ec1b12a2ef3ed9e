"""From made rows to table.md, rows.csv and rows.json: means over seeds and each seed's, the paper's figures beside."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from genie_ray.base.files import write_atomically
from genie_ray.base.results import Row, markdown
from genie_ray.evaluating.published_figures import FIGURES
from genie_ray.playing import depth
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.reproducing.description import PUBLISHED, ClaimText
from genie_ray.reproducing.draw import draw
from genie_ray.reproducing.graph import Job
from genie_ray.reproducing.pictures import DRAWERS
from genie_ray.reproducing.plan import Plan, PlannedRow
from genie_ray.reproducing.scaled import told
from genie_ray.reproducing.stages import RESULT, artefact, checks_of, directory_of, is_made, scores_of, seen_in

TITLES = {"psnr_mean": "PSNR (dB)", "ssim": "SSIM", "delta_psnr_mean": "ΔPSNR (dB)", "fid": "FID"}
"""The published measures, as they are defined there: PSNR and ΔPSNR are means of per-frame values."""
POOLED = {"psnr": "pooled PSNR (dB)", "delta_psnr": "pooled ΔPSNR (dB)"}
DIGITS = {"ssim": 3}
KEYS = (*FIGURES, *POOLED, "windows")
COPY_LABEL = "*copy the last frame*"
ABSENT = "–"
PAPER = "paper: "
"""Before the titles of the paper's columns, which a table without its figures lacks."""

Scores = Mapping[int, Mapping[str, Any]]
"""Seed → an evaluation's row, of the seeds that are made."""


def write_results(plan: Plan, out: Path) -> Path:
    """Writes the table's files as far as its rows are made, whichever command made them; returns table.md."""
    directory = out / f"{plan.name}-{plan.scale}"
    directory.mkdir(parents=True, exist_ok=True)
    scores = {id(row): made_scores(row, out) for row in plan.rows}
    texts = {
        "rows.json": json.dumps([_as_json(plan, row, scores[id(row)]) for row in plan.rows], indent=1),
        "rows.csv": as_csv(plan, [(row, scores[id(row)]) for row in plan.rows]),
        "table.md": document(plan, [(row, scores[id(row)]) for row in plan.rows], out),
    }
    for name, text in texts.items():
        write_atomically(directory / name, partial(Path.write_text, data=text, encoding="utf-8"))
    if plan.rows:
        draw(plan, [(row, scores[id(row)]) for row in plan.rows], directory / "rows.png")
    return directory / "table.md"


def made_scores(row: PlannedRow, out: Path) -> Scores:
    """The scores of the seeds that are made."""
    scored = row.text.scored
    return {seed: scores_of(job, out, scored=scored)["row"] for seed, job in row.jobs.items() if is_made(job, out)}


def document(plan: Plan, rows: Sequence[tuple[PlannedRow, Scores]], out: Path) -> str:
    """table.md."""
    table, seeds = plan.table, plan.seeds
    lines = [f"# {table.title}", "", f"{table.source}; scale *{plan.scale}*, seeds {', '.join(map(str, seeds))}.", ""]
    of_paper = any(row.paper is not None for row, _ in rows)
    if plan.scale != PUBLISHED:
        where = ", see below" if rows else ""
        lines += [f"**Scaled down{where}: these are not the paper's conditions, and its figures are no target.**", ""]
    if rows:
        lines += [
            "Each cell: the mean over seeds, in brackets each seed. PSNR and ΔPSNR as published (means of per-frame "
            "values); pooled ones are of the mean squared error."
            + (" *Paper*: its own figures, on its own games and data." if of_paper else ""),
            "",
        ]
    for section in dict.fromkeys(row.section for row, _ in rows):
        of_section = [(row, scores) for row, scores in rows if row.section == section]
        lines += [f"## {section}", ""] if section else []
        found = [*(line(row, scores) for row, scores in of_section), *_copy(of_section, out)]
        lines += [markdown([{key: one[key] for key in one if of_paper or not key.startswith(PAPER)} for one in found])]
    lines += _pictures(plan, out) + _claims(plan, rows) + _paper(plan) + _coverage(plan, out) + _agents(plan, out)
    lines += _scaled(plan)
    if rows:
        lines += ["## How each row is made", "", *(f"* {row_name(row)}: {chain(row, out)}" for row, _ in rows), ""]
    return "\n".join(lines)


def line(row: PlannedRow, scores: Scores) -> Row:
    """A line of a section's table."""
    found: Row = {"row": row.label}
    for key, title in TITLES.items():
        found[title] = cell([one.get(key) for one in scores.values()], key)
        found[PAPER + title] = paper_cell(row.paper, key)
    for key, title in POOLED.items():
        found[title] = cell([one.get(key) for one in scores.values()], key)
    counts = sorted({one["windows"] for one in scores.values()})
    found["windows"] = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1]))) if counts else ""
    return found


def cell(values: Sequence[float | None], key: str) -> str:
    """The mean, and in brackets each seed's, if there are several; a dash for what is not known."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return ABSENT if values else ""
    form = f"{'+' if key.startswith('delta') else ''}.{DIGITS.get(key, 2)}f"
    each = f" ({', '.join(f'{value:{form}}' for value in known)})" if len(known) > 1 else ""
    return f"{statistics.fmean(known):{form}}{each}"


def paper_cell(paper: Mapping[str, Any] | None, key: str) -> str:
    """A paper's figure; what is probably a misprint is said to be one."""
    if paper is None or paper[key] is None:
        return ""
    form = "+.2f" if key.startswith("delta") else ".2f"
    return f"{paper[key]:{form}}{' (misprint?)' if key in paper['suspect'].split() else ''}"


def claimed(claim: ClaimText, section: str, more: Scores, less: Scores) -> str | None:
    """Whether what the paper says of two rows holds here, seed by seed; None if no seed has both."""
    values = {
        seed: scores[claim.of] - less[seed][claim.of]
        for seed, scores in more.items()
        if seed in less and scores.get(claim.of) is not None and less[seed].get(claim.of) is not None
    }
    if not values:
        return None
    each, holds = ", ".join(f"{value:+.2f}" for value in values.values()), sum(value > 0 for value in values.values())
    where = f" ({section})" if section else ""
    mean = statistics.fmean(values.values())
    return f"{claim.claim}{where}: {TITLES[claim.of]} {mean:+.2f} ({each}); so in {holds} of {len(values)} seeds"


def chain(row: PlannedRow, out: Path) -> str:
    """The jobs that a row is made of, with their folders; of the first seed."""
    first = next(iter(row.jobs.values()))
    unique: dict[str, Job] = {job.identity: job for job in first.chain()}
    return " → ".join(f"{job.kind} `{directory_of(job, out).name}`" for job in unique.values())


def row_name(row: PlannedRow) -> str:
    """A row's label with its section."""
    return f"{row.section}: {row.label}" if row.section else row.label


def as_csv(plan: Plan, rows: Sequence[tuple[PlannedRow, Scores]]) -> str:
    """A line for each row and made seed."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["table", "scale", "section", "row", "seed", *KEYS, *(f"paper_{key}" for key in FIGURES)])
    for row, scores in rows:
        paper = [row.paper[key] if row.paper else None for key in FIGURES]
        for seed, one in scores.items():
            writer.writerow([plan.name, plan.scale, row.section, row.label, seed, *map(one.get, KEYS), *paper])
    return text.getvalue()


def _copy(rows: Sequence[tuple[PlannedRow, Scores]], out: Path) -> list[Row]:
    """Copying the last frame, on each test set of a section."""
    found: dict[str, dict[int, Any]] = {}
    for row, _ in rows:
        for seed, job in row.jobs.items():
            if is_made(job, out):
                found.setdefault(row.text.test, {})[seed] = scores_of(job, out, scored=row.text.scored)["copy"]
    return [
        line(rows[0][0], scores) | {"row": COPY_LABEL if len(found) == 1 else f"{COPY_LABEL}: {test}"} | _no_paper()
        for test, scores in found.items()
    ]


def _no_paper() -> Row:
    return {PAPER + title: "" for title in TITLES.values()}


def _pictures(plan: Plan, out: Path) -> list[str]:
    """The pictures that are drawn, by their places from the table's folder."""
    lines: list[str] = []
    for picture in plan.pictures:
        if is_made(picture.job, out):
            _, file = DRAWERS[picture.job.kind]
            place = f"../jobs/{directory_of(picture.job, out).name}/{RESULT}/{file}"
            heading = ": ".join(part for part in (picture.section, picture.text.picture) if part)
            lines += [f"## {heading}", "", f"![{heading}]({place})", ""]
    return lines


def _claims(plan: Plan, rows: Sequence[tuple[PlannedRow, Scores]]) -> list[str]:
    found = []
    for section in dict.fromkeys(row.section for row, _ in rows):
        by_label = {row.label: scores for row, scores in rows if row.section == section}
        for claim in plan.table.claims:
            if {claim.more, claim.less} <= set(by_label) and claim.section in (None, section):
                told_so = claimed(claim, section, by_label[claim.more], by_label[claim.less])
                found += [f"* {told_so}"] if told_so else []
    return ["## What the paper says of these rows", "", *found, ""] if found else []


def _paper(plan: Plan) -> list[str]:
    """The paper's rows on games that are none of ours."""
    if not plan.paper_rows:
        return []
    rows = [
        {"test set": row["test_set"], "model": row["model"]}
        | {title: paper_cell(row, key) for key, title in TITLES.items()}
        for row in plan.paper_rows
    ]
    return [f"## {plan.table.source}, its own games", "", markdown(rows)]


def _coverage(plan: Plan, out: Path) -> list[str]:
    """How much of the game each of the named plays has seen, in as many steps as the shortest has."""
    lines: list[Row] = []
    for seed, plays in plan.coverage.items():
        if not plays or not all(is_made(job, out) for job in plays.values()):
            continue
        steps = min(sum(ref.length for ref in ReplayDataset(artefact(job, out)).episodes) for job in plays.values())
        for name, job in plays.items():
            found = seen_in(job, out, steps)
            places = ABSENT if found.places is None else f"{found.places:,}"
            lines.append(
                {"play": name, "seed": seed, "steps": f"{steps:,}", "cells": f"{found.cells:,}", "places": places}
            )
    text = "Cells are different pictures of 16×16 grey pixels, places those of the player in a level."
    return ["## What the play has seen", "", text, "", markdown(lines)] if lines else []


def _agents(plan: Plan, out: Path) -> list[str]:
    """Whether the test agents that rows need are better than chance."""
    jobs = {job.identity: job for row in plan.rows for one in row.jobs.values() for job in one.chain()}
    players = [job for job in jobs.values() if job.kind == "player" and is_made(job, out)]
    found = [f"* {game}: {depth.told(one)}" for job in players for game, one in checks_of(job, out).items()]
    return ["## Are the test agents better than chance?", "", *found, ""] if found else []


def _scaled(plan: Plan) -> list[str]:
    lines = [f"* {note}" for note in plan.table.notes]
    for name, games in plan.missing.items():
        lines.append(f"* {name}: {len(games)} games are left out, whose ROMs are not here: {', '.join(games[:5])} …")
    own = ["## Otherwise than published, at every scale", "", *lines, ""] if lines else []
    if plan.scale == PUBLISHED or not plan.rows:
        return own
    scaled = [f"* {row_name(row)}: {told(row.scaled)}" for row in plan.rows]
    return [*own, "## What was scaled down", "", "Ours, in brackets the published scale's:", "", *scaled, ""]


def _as_json(plan: Plan, row: PlannedRow, scores: Scores) -> dict[str, Any]:
    return {
        "section": row.section,
        "row": row.label,
        "scores": {
            str(seed): {key: one.get(key) for key in (*FIGURES, *POOLED, "windows")} for seed, one in scores.items()
        },
        "paper": row.paper,
        "means": row.text.means,
        "scaled_down": [change._asdict() for change in row.scaled],
        "jobs": {str(seed): job.identity for seed, job in row.jobs.items()},
    }
