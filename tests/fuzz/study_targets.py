"""Target: answers of a user study, as people send them, and its key."""

import csv
import io
import json
from pathlib import Path
from typing import Any

from numpy.random import Generator

from genie_ray.studies.answers import COLUMNS
from genie_ray.studies.config import TRUTH
from genie_ray.studies.kit import KEY, seal
from genie_ray.studies.results import results
from tests.fuzz.judging import Check, accepted
from tests.fuzz.mutate import JUNK, damaged_bytes, damaged_json, pick


def study_answers(directory: Path) -> Check:
    """CSV files of two raters, one of them damaged; or the key is."""
    key = _key()
    whole = json.dumps(key)

    def check(rng: Generator) -> None:
        damaged_key = rng.random() < 0.2
        (directory / KEY).write_bytes(damaged_json(rng, key) if damaged_key else whole.encode())
        lines = [[key["study"], rater, name, "4", "1.5"] for rater in ("a", "b") for name in key["samples"]]
        paths = []
        for rater in ("a", "b"):
            content = _csv([line for line in lines if line[1] == rater])
            if rater == "b" and not damaged_key:
                content = _damaged(rng, [line for line in lines if line[1] == rater])
            paths.append(directory / f"{rater}.csv")
            paths[-1].write_bytes(content)
        if not (found := accepted(lambda: results(directory, paths))):
            return
        assert not damaged_key or json.loads((directory / KEY).read_bytes()) == key
        json.dumps(found[0], allow_nan=False)
        for row in found[0]["rows"]:
            assert row["answers"] <= row["samples"] * len(found[0]["raters"])

    return check


def _key() -> dict[str, Any]:
    samples = {}
    for number in range(4):
        side = {"source": "model" if number < 3 else TRUTH, "action": None}
        where = {"game": "Hero", "episode": "Hero/random/0/000000", "start": 10 * number, "action": None}
        samples[f"s{number}"] = where | {"left": side, "right": {"source": TRUTH, "action": None}}
    return seal({"kind": "quality", "models": {"model": "/m"}, "samples": samples})


def _csv(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([list(COLUMNS), *rows])
    return text.getvalue().encode(errors="surrogatepass")


def _damaged(rng: Generator, rows: list[list[str]]) -> bytes:
    if rng.random() < 0.5:
        return damaged_bytes(rng, _csv(rows))
    row = pick(rng, rows)
    row[int(rng.integers(len(row)))] = str(pick(rng, [junk for junk in JUNK if isinstance(junk, (str, float))]))
    if rng.random() < 0.2:
        row.append("more")
    return _csv(rows)
