"""Answers: one CSV a rater, as the page makes it. Whatever does not belong to the study is refused."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from genie_ray.base.files import shown
from genie_ray.studies.config import ANSWERS

COLUMNS = ("study", "rater", "sample", "answer", "seconds")
FOLDER = "answers"
"""Beside the kit: what `genie-ray study serve` keeps."""


class Answer(NamedTuple):
    """What a rater said about a sample."""

    rater: str
    sample: str
    answer: str
    seconds: float  # from the clips' start to the answer


def read_answers(key: Mapping[str, Any], paths: Iterable[Path]) -> list[Answer]:
    """All answers; one that is in two files, once.

    Raises:
        ValueError: a file that is none of this study's, or two files in which a rater says different things.
    """
    found: dict[tuple[str, str], tuple[Answer, Path]] = {}
    for path in paths:
        if not path.is_file():
            raise ValueError(f"answers {path}: no such file")
        try:
            answers = parse_answers(key, path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            raise ValueError(f"answers {path}: not UTF-8 text (byte {error.start})") from error
        except ValueError as error:
            raise ValueError(f"answers {path}: {error}") from error
        for answer in answers:
            before, where = found.setdefault((answer.rater, answer.sample), (answer, path))
            if before.answer != answer.answer:
                raise ValueError(
                    f"rater {shown(answer.rater)} says {before.answer} about sample {answer.sample} in {where}, and "
                    f"{answer.answer} in {path}: give one of the files"
                )
    return [answer for answer, _ in found.values()]


def parse_answers(key: Mapping[str, Any], text: str) -> list[Answer]:
    """The answers in a CSV.

    Raises:
        ValueError: one line; not this study's answers.
    """
    rows = csv.DictReader(io.StringIO(text), strict=True)
    try:
        lines = list(rows)
    except csv.Error as error:
        raise ValueError(f"not a CSV: {error}") from error
    if tuple(rows.fieldnames or ()) != COLUMNS:
        raise ValueError(f"not a CSV with the columns {', '.join(COLUMNS)}")
    allowed = ANSWERS[key["kind"]]
    answers = []
    for number, row in enumerate(lines, 2):
        if None in row or None in row.values():
            raise ValueError(f"line {number} has not {len(COLUMNS)} values")
        if row["study"] != key["study"]:
            raise ValueError(f"line {number} is of study {shown(row['study'])}: must be {key['study']}")
        if not row["rater"].strip():
            raise ValueError(f"line {number} names no rater")
        if row["sample"] not in key["samples"]:
            raise ValueError(f"line {number} has sample {shown(row['sample'])}: the study has none of this name")
        if row["answer"] not in allowed:
            raise ValueError(f"line {number} has answer {shown(row['answer'])}: allowed are {', '.join(allowed)}")
        try:
            seconds = float(row["seconds"])
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            raise ValueError(f"line {number} has {shown(row['seconds'])} seconds: must be a number, 0 or more")
        answers.append(Answer(row["rater"].strip(), row["sample"], row["answer"], seconds))
    if len({(answer.rater, answer.sample) for answer in answers}) < len(answers):
        raise ValueError("a rater answers a sample twice")
    return answers
