"""Targets: overrides, presets, the settings that a directory keeps, and the plan of a comparison."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from numpy.random import Generator

from experiments.claim.plan import Plan, read_plan
from genie_ray.base.settings import build, check_unchanged, load_values, to_dict
from genie_ray.config import RunConfig, load_config
from tests.fuzz.judging import Check, accepted
from tests.fuzz.mutate import JUNK, damaged_bytes, damaged_text, damaged_value, json_text, pick

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
YAML_JUNK = (
    *("null", "true", "0", "-1", ".inf", "-.inf", ".nan", "1e400", "9" * 40, "9" * 5000, "0x" + "f" * 5000, "1:30:00"),
    *("''", "junk", '"two\\nlines"', "[]", "[[]]", "[1]", "[.nan, 2]", "{}", "{a: 1}", "{1: 2}", "{[1]: 2}"),
    *("? {a: 1}", "2026-01-01", "2026-13-45", "!!binary aGk=", "!!binary ~", '"\\ud800"', "@", "[1", "*x", "a: b: c"),
    *("!!python/object:os.system x", "!!omap [a: 1]", "!!float x", "!!int ''", "!!timestamp x", "{a: 1, a: 2}"),
    *("&a {b: *a}", "!!pairs [a: 1]", "<<: 1", "{<<: [1]}", "{<<: {seed: 1}}", "%TAG ! x", "--- 1\n--- 2"),
    *("\x00", "[" * 20_000, "&a [*a]", "!!set {1, 2}"),
    "[&a [x,x,x,x,x,x,x,x,x], &b [*a,*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b,*b], "
    "&d [*c,*c,*c,*c,*c,*c,*c,*c,*c], &e [*d,*d,*d,*d,*d,*d,*d,*d,*d], &f [*e,*e,*e,*e,*e,*e,*e,*e,*e], "
    "&g [*f,*f,*f,*f,*f,*f,*f,*f,*f], &h [*g,*g,*g,*g,*g,*g,*g,*g,*g], [*h,*h,*h,*h,*h,*h,*h,*h,*h]]",
)  # fmt: skip


def keys(cls: type, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a config and its parts."""
    for name, kind in get_type_hints(cls).items():
        yield prefix + name
        if dataclasses.is_dataclass(kind):
            yield from keys(kind, f"{prefix}{name}.")


KEYS = list(keys(RunConfig))


def overrides(directory: Path) -> Check:
    """`key=value`, as on the command line."""

    def check(rng: Generator) -> None:
        given = []
        for _ in range(int(rng.choice([1, 1, 2, 4]))):
            value = pick(rng, YAML_JUNK) if rng.random() < 0.6 else json_text(pick(rng, JUNK))
            value = damaged_text(rng, value) if rng.random() < 0.2 else value
            key = damaged_text(rng, pick(rng, KEYS)) if rng.random() < 0.1 else pick(rng, KEYS)
            given.append(f"{key}={value}")
        if loaded := accepted(lambda: load_config(None, given)):
            assert_sound(loaded[0])
            for key, value in _wanted(given):
                assert _same(_at(to_dict(loaded[0]), key), value), f"{key}={value!r} took no effect"

    return check


def presets(directory: Path) -> Check:
    """YAML files."""
    files = sorted(
        [*EXPERIMENTS.glob("*.yaml"), *EXPERIMENTS.glob("explore/*.yaml"), *EXPERIMENTS.glob("sizes/*.yaml")]
    )
    texts = [file.read_text() for file in files]

    def check(rng: Generator) -> None:
        path = directory / "preset.yaml"
        path.write_bytes(damaged_yaml(rng, pick(rng, texts)))
        if loaded := accepted(lambda: load_config([path])):
            assert_sound(loaded[0])

    return check


def kept_settings(directory: Path) -> Check:
    """The `config.yaml` that a directory was created with."""
    settings = to_dict(RunConfig())
    text = yaml.safe_dump(settings, sort_keys=False)

    def check(rng: Generator) -> None:
        yaml_or_json = pick(rng, ("config.yaml", "config.json"))
        content = damaged_yaml(rng, text)
        if yaml_or_json == "config.json":
            content = json_text(damaged_value(rng, settings)).encode()
            content = damaged_bytes(rng, content) if rng.random() < 0.3 else content
        (directory / yaml_or_json).write_bytes(content)
        accepted(lambda: check_unchanged(directory, settings, file=yaml_or_json))

    return check


def plan(directory: Path) -> Check:
    """The comparison's file."""
    text = (EXPERIMENTS / "claim" / "config.yaml").read_text()
    whole = yaml.safe_load(text)
    fewer = {**whole, "games": dict(list(whole["games"].items())[:1]), "seeds": [1]}
    fewer["arms"] = {name: whole["arms"][name] for name in ("random", "random, held", "ours", "ours, ranked", "oracle")}
    short = yaml.safe_dump(fewer, sort_keys=False)

    def check(rng: Generator) -> None:
        path = directory / "plan.yaml"
        path.write_bytes(damaged_yaml(rng, short))
        if read := accepted(lambda: read_plan(path, tiny=bool(rng.random() < 0.3))):
            assert isinstance(read[0], Plan)
            assert all(isinstance(seed, int) for seed in read[0].seeds)
            assert read[0].comparisons

    return check


def damaged_yaml(rng: Generator, text: str) -> bytes:
    """A YAML file with wrong values, or damaged as text, or with a piece of strange YAML in it."""
    kind = rng.random()
    if kind < 0.6:
        value = damaged_value(rng, yaml.safe_load(text))
        return json_text(value).encode()  # JSON is YAML, and is written much faster
    if kind < 0.8:
        return damaged_bytes(rng, text.encode())
    lines = text.split("\n")
    number = int(rng.integers(len(lines)))
    key, colon, _ = lines[number].partition(":")
    lines[number] = (
        f"{key}{colon} {pick(rng, YAML_JUNK)}" if rng.random() < 0.7 else lines[int(rng.integers(len(lines)))]
    )
    return "\n".join(lines).encode(errors="surrogatepass")


def assert_sound(config: RunConfig) -> None:
    """Only finite numbers, but for limits; and the same again from its plain values."""
    plain = to_dict(config)
    assert not any(map(math.isnan, _numbers(plain))), "accepted a NaN"
    assert build(RunConfig, plain) == config


def _wanted(given: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """What the last override of each key asks for, if no other one is above or below it."""
    asked = {each.partition("=")[0]: each for each in given}
    for key, each in asked.items():
        if sum(other.startswith(key.split(".")[0]) for other in asked) == 1:
            value = load_values(None, [each])
            yield key, _at(value, key)


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _same(ours: Any, given: Any) -> bool:
    """Equal up to how a number is written; of a mapping, in what it says."""
    if isinstance(given, dict):
        return all(_same(ours[key], value) for key, value in given.items())
    if isinstance(ours, list):
        return len(ours) == len(given) and all(map(_same, ours, given))
    if isinstance(ours, bool) or isinstance(given, bytes):
        return True  # 1, "on" and "yes" are true, too; bytes are text
    if ours is None or isinstance(given, bool):
        return ours is given
    return ours == given or (isinstance(ours, int | float) and float(ours) == float(given))


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)
    elif isinstance(value, float):
        yield value
