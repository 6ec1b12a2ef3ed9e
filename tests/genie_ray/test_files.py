"""YAML and JSON that would exhaust the stack or the memory, or say two things, are refused in one line."""

import re

import pytest

from genie_ray.base.files import LONGEST, parse_json, parse_yaml, shown

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 20_000, "nested more than 50 levels deep"),
        (BOMB, "more than 100,000 values"),
        (MERGES, "more than 100,000 values"),
        ("a: &a [*a]", "an alias refers to what it is in"),
        ("seed: 1\ngames: []\nseed: 2", "the key 'seed' is given twice, the second time in line 3"),
        ("!!timestamp x", ""),
        ("!!int ''", ""),
        ("[1", "line 1"),
        (b"a: \xff", "not UTF-8 text (byte 3)"),
    ],
)
def test_yaml_that_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match="^not valid YAML: .*" + re.escape(reason)) as refusal:
        parse_yaml(text)
    assert "\n" not in str(refusal.value)


def test_aliases_may_be_merged_and_given_anew() -> None:
    a, b = {"one": 1, "two": 2}, {"one": 1, "two": 3}
    text = "a: &a {one: 1, two: 2}\nb: &b {<<: *a, two: 3}\nc: {<<: *b, one: 4}\nd: *a"
    assert parse_yaml(text) == {"a": a, "b": b, "c": {"one": 4, "two": 3}, "d": a}


@pytest.mark.parametrize("text", ["[" * 200_000, "{", "", b"\xff\xfe\xfd"])
def test_json_that_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"^not valid JSON: ") as refusal:
        parse_json(text)
    assert type(refusal.value) is ValueError
    assert "\n" not in str(refusal.value)


def test_long_values_are_shown_without_their_middle() -> None:
    assert shown("short") == "'short'"
    assert len(shown("x" * 9999)) < LONGEST
    assert "thousands of digits" in shown([10**5000])
