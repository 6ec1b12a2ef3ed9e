"""What answers say: numbers worked out by hand or published, intervals that cover raters and windows, bad files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genie_ray.studies.agreement import krippendorff_alpha
from genie_ray.studies.answers import COLUMNS, Answer, parse_answers, read_answers
from genie_ray.studies.config import TRUTH
from genie_ray.studies.results import Resampled, estimate, print_results, summarize


def test_alpha_is_that_of_krippendorffs_example() -> None:
    """Four observers, twelve units, five values, data missing: 0.743 nominal, 0.815 ordinal (Krippendorff, 2011)."""
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],  # 0: missing
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]
    values = np.array(observers)
    counts = np.stack([(values == value).sum(axis=0) for value in range(1, 6)], axis=1)
    assert krippendorff_alpha(counts, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(counts, "ordinal") == pytest.approx(0.815, abs=5e-4)


def test_alpha_knows_perfect_agreement_chance_and_nothing() -> None:
    assert krippendorff_alpha(np.array([[2, 0], [0, 3]]), "nominal") == 1
    rng = np.random.default_rng(0)
    chance = np.stack([rng.multinomial(3, [0.2, 0.3, 0.5]) for _ in range(20_000)])
    assert krippendorff_alpha(chance, "nominal") == pytest.approx(0, abs=0.01)
    assert krippendorff_alpha(np.array([[1, 0], [0, 1]]), "nominal") is None  # no unit with two answers
    assert krippendorff_alpha(np.array([[2, 0], [3, 0]]), "ordinal") is None  # one value


def test_intervals_cover_raters_and_windows() -> None:
    """With one rater it is the samples' spread; two raters who never agree can be drawn as one alone."""
    rng = np.random.default_rng(0)
    alone = rng.normal(3, 1, (1, 200))
    found = estimate(Resampled(1, np.arange(200)).means(alone, range(200)))
    assert found is not None
    assert found["value"] == pytest.approx(alone.mean())
    half = 1.96 * alone.std() / np.sqrt(200)
    assert (found["low"], found["high"]) == pytest.approx((alone.mean() - half, alone.mean() + half), abs=0.02)
    apart = np.array([[2.0] * 50, [4.0] * 50])
    assert estimate(Resampled(2, np.arange(50)).means(apart, range(50))) == {"value": 3, "low": 2, "high": 4}
    # Samples of one window are drawn together: as few windows as two make the interval that wide.
    pairs = np.array([[1.0] * 25 + [5.0] * 25])
    assert estimate(Resampled(1, np.repeat([0, 1], 25)).means(pairs, range(50))) == {"value": 3, "low": 1, "high": 5}


def side(source: str, action: str | None = None) -> dict[str, Any]:
    return {"source": source, "action": action}


def key(kind: str, samples: dict[str, tuple[int, dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    told = {
        name: {"game": "G", "episode": "G/1", "start": start, "action": "UP", "left": left, "right": right}
        for name, (start, left, right) in samples.items()
    }
    return {"study": f"{kind}-1", "kind": kind, "models": {"a": "/a", "b": "/b"}, "samples": told}


QUALITY = key(
    "quality",
    {
        "a0": (0, side("a"), side(TRUTH)),
        "a1": (9, side(TRUTH), side("a")),
        "b0": (0, side("b"), side(TRUTH)),
        "b1": (9, side("b"), side(TRUTH)),
        "t": (0, side(TRUTH), side(TRUTH)),
    },
)
ACTION = key(
    "action",
    {
        "a0": (0, side("a", "UP"), side("a", "DOWN")),
        "a1": (9, side("a", "DOWN"), side("a", "UP")),
        "t": (0, side(TRUTH, "DOWN"), side(TRUTH, "UP")),
        "ab": (0, side("a", "UP"), side("b", "UP")),
        "ba": (9, side("b", "UP"), side("a", "UP")),
    },
)


def said(rater: str, **answers: str) -> list[Answer]:
    return [Answer(rater, sample, answer, 2.0) for sample, answer in answers.items()]


def value(estimated: Any) -> float:
    return round(estimated["value"], 6)


def test_quality_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    answers = said("x", a0="4", a1="2", b0="2", b1="2", t="5") + said("y", a0="3", b0="3", t="4")
    found = summarize(QUALITY, answers)
    rows = {row["label"]: row for row in found["rows"]}
    assert value(rows["a"]["mean"]) == 3  # 4, 2, 3
    assert value(rows[TRUTH]["mean"]) == 4.5
    assert value(rows["a"]["share"]) == pytest.approx(2 / 3.5)
    assert value(rows[TRUTH]["share"]) == 1
    assert [rows[label]["answers"] for label in ("a", "b", TRUTH)] == [3, 3, 2]
    (preference,) = found["preferences"]
    assert value(preference["preferred"]) == pytest.approx(2 / 3)  # higher, the same, the same
    assert found["raters"] == {"x": 5, "y": 3}
    assert found["alpha"] is not None
    print_results(found)
    told = capsys.readouterr().out
    for line in ("a preferred over b: 0.67", "did not answer all 5 samples: y 3", "0.75 ± 0.019"):
        assert line in told


def test_actions_by_hand() -> None:
    answers = said("x", a0="left", a1="left", t="right", ab="left", ba="neither")
    answers += said("y", a0="left", a1="neither", t="right", ab="right", ba="right")
    found = summarize(ACTION, answers)
    rows = {row["label"]: row for row in found["rows"]}
    assert [value(rows["a"][name]) for name in ("named", "other", "neither")] == [0.5, 0.25, 0.25]
    assert value(rows[TRUTH]["named"]) == 1
    assert rows["b"]["samples"] == 0
    assert rows["b"]["named"] is None
    (preference,) = found["preferences"]
    assert value(preference["preferred"]) == (1 + 0.5 + 0 + 1) / 4  # of a


def test_answers_are_read_as_the_page_writes_them(tmp_path: Path) -> None:
    header = ",".join(COLUMNS)
    (tmp_path / "1.csv").write_text(f'\ufeff{header}\r\nquality-1,"Anna, B",a0,4,2.2\r\nquality-1,"Anna, B",t,5,1\r\n')
    (tmp_path / "2.csv").write_text(f'{header}\nquality-1,"Anna, B",a0,4,2.2\nquality-1,Bo,a0,1,3\n')
    answers = read_answers(QUALITY, sorted(tmp_path.iterdir()))
    assert answers == [
        Answer("Anna, B", "a0", "4", 2.2),
        Answer("Anna, B", "t", "5", 1.0),
        Answer("Bo", "a0", "1", 3.0),
    ]
    (tmp_path / "3.csv").write_text(f"{header}\nquality-1,Bo,a0,2,3\n")
    with pytest.raises(ValueError, match=r"rater 'Bo' says 1 about sample a0 in .*2.csv, and 2 in .*3.csv: give one"):
        read_answers(QUALITY, sorted(tmp_path.iterdir()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a CSV with the columns study, rater, sample, answer, seconds"),
        ("study,rater\nquality-1,x\n", "not a CSV with the columns"),
        ("H\nquality-1,x,a0,4\n", "line 2 has not 5 values"),
        ("H\nquality-1,x,a0,4,1,2\n", "line 2 has not 5 values"),
        ("H\nquality-2,x,a0,4,1\n", "line 2 is of study 'quality-2': must be quality-1"),
        ("H\nquality-1, ,a0,4,1\n", "line 2 names no rater"),
        ("H\nquality-1,x,zz,4,1\n", "line 2 has sample 'zz'"),
        ("H\nquality-1,x,a0,4,1\nquality-1,x,a1,6,1\n", "line 3 has answer '6': allowed are 5, 4, 3, 2, 1"),
        ("H\nquality-1,x,a0,4,soon\n", "line 2 has 'soon' seconds: must be a number, 0 or more"),
        ("H\nquality-1,x,a0,4,nan\n", "line 2 has 'nan' seconds"),
        ("H\nquality-1,x,a0,4,1\nquality-1,x,a0,4,1\n", "a rater answers a sample twice"),
        ('H\nquality-1,"x,a0,4,1\n', "not a CSV"),
    ],
)
def test_a_file_of_something_else_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        parse_answers(QUALITY, text.replace("H", ",".join(COLUMNS), 1))
    assert "\n" not in str(error.value)
