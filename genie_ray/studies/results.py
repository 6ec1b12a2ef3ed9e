"""What the answers of a study say: means with intervals, preferences, and how far raters agree.

Intervals hold 95 % of 2,000 draws in which the raters and the recorded windows are each drawn anew with replacement, so
that they cover other raters and other windows. (Crossed, or pigeonhole, bootstrap: Owen, 2007, arXiv 0712.1111.)

Axes: R raters, S samples, W windows, D draws.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from genie_ray.base.progress import console
from genie_ray.studies.agreement import krippendorff_alpha
from genie_ray.studies.answers import FOLDER, Answer, read_answers
from genie_ray.studies.config import ANSWERS, TRUTH
from genie_ray.studies.kit import read_key

DRAWS = 2_000
PUBLISHED = "0.75 ± 0.019"
"""Supplement E of the paper."""

Estimate = dict[str, float]
"""`value`, `low`, `high`."""


class Resampled:
    """Means of answers under redrawn raters and windows; draw 0 has each once.

    Args:
        raters: R.
        window_S: number of each sample's window.
    """

    def __init__(self, raters: int, window_S: NDArray[np.int64], seed: int = 0) -> None:
        rng, windows = np.random.default_rng(seed), int(window_S.max()) + 1

        def drawn(count: int) -> NDArray[np.float64]:
            weights = rng.multinomial(count, np.full(count, 1 / count), size=DRAWS)
            return np.concatenate([np.ones((1, count)), weights])

        self._rater_DR, self._window_DW = drawn(raters), drawn(windows)
        self._window_S = window_S

    def means(self, values_RS: NDArray[np.float64], columns: Sequence[int]) -> NDArray[np.float64]:
        """The mean of some samples' values in each draw; NaN where a draw has none of them.

        Args:
            values_RS: NaN where a rater gave no answer.
        """
        values = values_RS[:, list(columns)]
        there = ~np.isnan(values)
        weight_DS = self._window_DW[:, self._window_S[list(columns)]]
        total_D = ((self._rater_DR @ np.where(there, values, 0.0)) * weight_DS).sum(axis=1)
        count_D = ((self._rater_DR @ there.astype(float)) * weight_DS).sum(axis=1)
        return np.divide(total_D, count_D, out=np.full(len(total_D), np.nan), where=count_D > 0)


def estimate(draws_D: NDArray[np.float64]) -> Estimate | None:
    """The value and its interval; None where nothing was answered."""
    if np.isnan(draws_D[0]):
        return None
    low, high = np.nanpercentile(draws_D[1:], [2.5, 97.5])
    return {"value": float(draws_D[0]), "low": float(low), "high": float(high)}


def results(output: Path, paths: Sequence[Path] = ()) -> dict[str, Any]:
    """What the answers of a study say.

    Args:
        output: directory of the study.
        paths: CSV files of answers; without any, those that `genie-ray study serve` kept.

    Raises:
        ValueError: no study, no answers, or answers that are not the study's.
    """
    key = read_key(output)
    where = output / FOLDER / "*.csv"
    answers = read_answers(key, paths or sorted(where.parent.glob(where.name)))
    if not answers:
        raise ValueError(f"no answers: give CSV files that the page made, or serve the study, which keeps {where}")
    return summarize(key, answers)


def summarize(key: dict[str, Any], answers: Sequence[Answer]) -> dict[str, Any]:
    """Rows by source, preferences between models, agreement, and how much each rater answered."""
    names, raters = list(key["samples"]), sorted({answer.rater for answer in answers})
    samples = list(key["samples"].values())
    places = [(sample["episode"], sample["start"]) for sample in samples]
    windows = {place: number for number, place in enumerate(dict.fromkeys(places))}
    given: NDArray[Any] = np.full((len(raters), len(names)), None, object)
    for answer in answers:
        given[raters.index(answer.rater), names.index(answer.sample)] = answer.answer
    resampled = Resampled(len(raters), np.array([windows[place] for place in places]))
    values = list(ANSWERS[key["kind"]])
    quality = key["kind"] == "quality"
    counts_UV = np.stack([(given == value).sum(axis=0) for value in values], axis=1)
    rows, preferences = (_quality if quality else _action)(key, samples, given, resampled)
    return {
        "study": key["study"],
        "kind": key["kind"],
        "rows": rows,
        "preferences": preferences,
        "alpha": krippendorff_alpha(counts_UV, "ordinal" if quality else "nominal"),
        "raters": {rater: int((given[index] != None).sum()) for index, rater in enumerate(raters)},  # noqa: E711
        "samples": len(names),
        "median_seconds": float(np.median([answer.seconds for answer in answers])),
    }


def _sources(sample: dict[str, Any]) -> tuple[str, str]:
    return sample["left"]["source"], sample["right"]["source"]


def _quality(
    key: dict[str, Any], samples: list[dict[str, Any]], given: NDArray[Any], resampled: Resampled
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Mean ratings; as shares of the scale from 1 to the game's own mean; and how often a model is rated higher."""
    ratings_RS = np.where(given == None, np.nan, given).astype(float)  # noqa: E711
    columns = {
        label: [index for index, sample in enumerate(samples) if set(_sources(sample)) == {TRUTH, label}]
        for label in (*key["models"], TRUTH)
    }
    means = {label: resampled.means(ratings_RS, found) for label, found in columns.items()}
    rows = []
    for label, found in columns.items():
        with np.errstate(invalid="ignore", divide="ignore"):
            share_D = (means[label] - 1) / (means[TRUTH] - 1)
        share = estimate(share_D[np.isfinite(share_D) | (np.arange(len(share_D)) == 0)])
        rows.append(_row(label, found, given) | {"mean": estimate(means[label]), "share": share})
    preferences = []
    for one, other in itertools.combinations(key["models"], 2):
        place = {(samples[index]["episode"], samples[index]["start"]): index for index in columns[other]}
        pairs = [(index, place[samples[index]["episode"], samples[index]["start"]]) for index in columns[one]]
        preferred_RS = np.full(ratings_RS.shape, np.nan)
        for ours, theirs in pairs:
            preferred_RS[:, ours] = (np.sign(ratings_RS[:, ours] - ratings_RS[:, theirs]) + 1) / 2
        preferences.append(_preference(one, other, resampled.means(preferred_RS, columns[one])))
    return rows, preferences


def _action(
    key: dict[str, Any], samples: list[dict[str, Any]], given: NDArray[Any], resampled: Resampled
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """How often the clip with the named action is recognised; and how often one model's is chosen over another's."""

    def said(side_of: Any) -> NDArray[np.float64]:
        """1 where the answer is the side that `side_of` tells of a sample, 0 where another, NaN where none."""
        wanted = np.array([side_of(sample) for sample in samples], object)
        return np.where(given == None, np.nan, given == wanted[None]).astype(float)  # noqa: E711

    def side(sample: dict[str, Any], what: str, value: str) -> str:
        return "left" if sample["left"][what] == value else "right"

    named_RS = said(lambda sample: side(sample, "action", sample["action"]))
    neither_RS = said(lambda sample: "neither")
    rows = []
    for label in (*key["models"], TRUTH):
        found = [index for index, sample in enumerate(samples) if set(_sources(sample)) == {label}]
        shares = {"named": named_RS, "other": 1 - named_RS - neither_RS, "neither": neither_RS}
        rows.append(
            _row(label, found, given)
            | {name: estimate(resampled.means(values, found)) for name, values in shares.items()}
        )
    preferences = []
    for one, other in itertools.combinations(key["models"], 2):
        found = [index for index, sample in enumerate(samples) if set(_sources(sample)) == {one, other}]
        preferred_RS = said(lambda sample, one=one: side(sample, "source", one)) + neither_RS / 2
        preferences.append(_preference(one, other, resampled.means(preferred_RS, found)))
    return rows, preferences


def _row(label: str, columns: list[int], given: NDArray[Any]) -> dict[str, Any]:
    answers = int((given[:, columns] != None).sum())  # noqa: E711
    return {"label": label, "samples": len(columns), "answers": answers}


def _preference(one: str, other: str, draws_D: NDArray[np.float64]) -> dict[str, Any]:
    return {"label": one, "over": other, "preferred": estimate(draws_D)}


TITLES = {
    "mean": "mean rating, 1 to 5",
    "share": "share of the game's own",
    "named": "named action chosen",
    "other": "other action chosen",
    "neither": "neither, or both",
}


def print_results(document: dict[str, Any]) -> None:
    """Prints the tables of `results`."""
    shown = [name for name in TITLES if name in document["rows"][0]]
    table = Table(title=f"{document['kind']} study", title_justify="left")
    for column in ("clips of", "samples", "answers", *(TITLES[name] for name in shown)):
        table.add_column(column, justify="left" if column == "clips of" else "right")
    for row in document["rows"]:
        if row["samples"]:
            table.add_row(row["label"], str(row["samples"]), str(row["answers"]), *(_text(row[name]) for name in shown))
    console.print(table)
    for row in document["preferences"]:
        console.print(f"{row['label']} preferred over {row['over']}: {_text(row['preferred'])}", soft_wrap=True)
    alpha, raters = document["alpha"], document["raters"]
    level = "ordinal" if document["kind"] == "quality" else "nominal"
    agreed = "not defined, no two raters differ or share a sample" if alpha is None else f"{alpha:.2f}"
    console.print(f"agreement of {len(raters)} raters (Krippendorff's α, {level}): {agreed}", soft_wrap=True)
    unfinished = {rater: count for rater, count in raters.items() if count < document["samples"]}
    if unfinished:
        told = ", ".join(f"{rater} {count}" for rater, count in unfinished.items())
        console.print(f"did not answer all {document['samples']} samples: {told}", soft_wrap=True)
    console.print(
        "in brackets: 95 % interval over raters and windows, both drawn anew. "
        f"The paper, with other models and raters (supplement E): {PUBLISHED}",
        soft_wrap=True,
    )


def _text(found: Estimate | None) -> str:
    return "–" if found is None else f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
