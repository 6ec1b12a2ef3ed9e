"""Settings: YAML and key=value in, validated dataclasses out; and the settings that a directory was created with.

A package's settings are a frozen dataclass in its `config.py` that validates itself. This module builds such
dataclasses from plain values, compares them, and saves them in the directories that were created with them.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from genie_ray.base.errors import one_line
from genie_ray.base.files import parse_json, parse_yaml, shown, write_atomically

if TYPE_CHECKING:
    from genie_ray.storage.paths import StoredPath

SETTINGS_FILE = "config.yaml"
"""The file in which a directory keeps the settings it was created with."""

LIMITS = ("clip_norm", "gradient_norm", "rho_clip")
"""Settings that may be infinite, which switches them off."""

MOST_SHOWN = 3  # differences, in a message


Files = str | Path | Sequence[str | Path] | None
"""YAML files of settings; in what they share, the later one counts. None: the defaults."""


def load_values(files: Files, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The settings of YAML files with overrides, not yet validated.

    Args:
        files: each lists what differs from the defaults.
        overrides: `key=value`, keys dotted (`dynamics.blocks=4`), values in YAML.

    Raises:
        ValueError: one line; a file cannot be read, or an override is malformed.
    """
    values: dict[str, Any] = {}
    for path in [files] if isinstance(files, str | Path) else files or ():
        values = merge(values, _read(path))
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ValueError(f"override {shown(override)}: expected key=value, as in dynamics.blocks=4")
        try:
            value = parse_yaml(text)
        except ValueError as error:
            raise ValueError(f"override {shown(override)} is {error}") from error
        _assign(values, key, value)
    return values


def _read(path: str | Path) -> dict[str, Any]:
    try:
        loaded = parse_yaml(Path(path).read_bytes())
    except FileNotFoundError as error:
        raise ValueError(f"no such config file: {path}") from error
    except ValueError as error:
        raise ValueError(f"{path} is {error}") from error
    if not isinstance(loaded or {}, dict):
        raise ValueError(f"{path} holds a {type(loaded).__name__}: must hold a mapping of settings")
    return loaded or {}


def build(cls: type[Any], values: Mapping[str, Any], prefix: str = "") -> Any:
    """Builds a config dataclass from a nested mapping, checking keys, types and ranges.

    Raises:
        ValueError: one line that names the key, what was given and what is allowed.
    """
    hints = get_type_hints(cls)
    defaults = {f.name: f for f in dataclasses.fields(cls)}
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in hints:
            written = key if isinstance(key, str) else shown(key)
            raise ValueError(f"unknown key {shown(prefix + written)}{_nearest(written, prefix, list(hints))}")
        name = f"{prefix}{key}"
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                allowed = ", ".join(f.name for f in dataclasses.fields(hints[key]))
                raise ValueError(f"{name} = {shown(value)}: expected settings of its own ({allowed})")
            start = _default(defaults[key])
            value = {**_explicit(start, hints[key]), **value}
            arguments[key] = build(hints[key], value, f"{name}.")
        else:
            if hints[key] is not bool and _holds_bool(value):  # which Python, and so pydantic, takes for a number
                raise ValueError(f"{name} = {shown(value)}: expected {_named(hints[key])}")
            try:
                arguments[key] = _adapter(hints[key], may_be_infinite=key in LIMITS).validate_python(value)
            except ValidationError as error:
                first = error.errors()[0]
                allowed = f"must be a list, {name}=[…]" if _wants_list(first, value) else first["msg"].lower()
                raise ValueError(f"{name} = {shown(value)}: {allowed}") from None
            if _too_large(arguments[key]):
                raise ValueError(f"{name} = {shown(value)}: integers must be below 2**63")
    try:
        return cls(**arguments)
    except ValueError as error:
        raise ValueError(f"{prefix}{one_line(error)}") from None


def _wants_list(error: Mapping[str, Any], value: Any) -> bool:
    """Whether one value was given where a list is wanted, as in `games=CoinRun`."""
    return error["type"] in ("tuple_type", "list_type") and isinstance(value, str | int | float)


def to_dict(config: Any) -> dict[str, Any]:
    """The config as plain nested values, ready for YAML or JSON."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value

    return plain(dataclasses.asdict(config))


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`key: ours → theirs` for every leaf in which two plain configs differ."""
    lines: list[str] = []
    for key in sorted({*ours, *theirs}, key=str):
        left, right = ours.get(key), theirs.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            lines += differences(left, right, f"{_plain(prefix, key)}.")
        elif left != right:
            lines.append(f"{_plain(prefix, key)}: {shown(left)} → {shown(right)}")
    return lines


def _plain(prefix: str, key: Any) -> str:
    """A key for a message."""
    return prefix + (key if isinstance(key, str) and key.isprintable() and len(key) < 100 else shown(key))


def describe_changes(lines: Sequence[str]) -> str:
    """Differences for a message: the first few, and how many more there are."""
    more = f"; and {len(lines) - MOST_SHOWN} more" if len(lines) > MOST_SHOWN else ""
    return "; ".join(lines[:MOST_SHOWN]) + more


def check_unchanged(
    directory: StoredPath,
    settings: Mapping[str, Any],
    *,
    free: Sequence[str] = (),
    file: str = SETTINGS_FILE,
    what: str = "a run",
    advice: str = "give another --out",
) -> None:
    """Refuses to continue in a directory that was created with other settings.

    Args:
        free: key prefixes of settings that may differ.
        file: the directory's settings file; YAML, or JSON if its suffix says so.
        what: what the directory holds, for the message.
        advice: what to do instead, for the message.

    Raises:
        ValueError: one line that names what differs.
    """
    saved = directory / file
    if not saved.exists():
        return
    try:
        before = (parse_json if saved.suffix == ".json" else parse_yaml)(saved.read_bytes())
        if not isinstance(before, dict):
            raise ValueError(f"not a mapping of settings but {shown(before)}")
    except ValueError as error:
        raise ValueError(f"{saved} is damaged: it is {error}") from error
    changed = [line for line in differences(before, settings) if not line.startswith(tuple(free))]
    if changed:
        raise ValueError(f"{directory} holds {what} with other settings ({describe_changes(changed)}): {advice}")


def keep_settings(directory: StoredPath, settings: Mapping[str, Any], *, file: str = SETTINGS_FILE) -> None:
    """Saves the settings that a directory is created with, for `check_unchanged`; creates the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    dump = json.dumps(settings, indent=1) if file.endswith(".json") else yaml.safe_dump(dict(settings), sort_keys=False)
    write_atomically(directory / file, lambda path: path.write_text(dump))


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with nested changes."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise ValueError(f"override {shown(key)}: {shown(parent)} has no settings of its own")
    values[leaf] = value


@cache
def _adapter(hint: Any, *, may_be_infinite: bool) -> TypeAdapter[Any]:
    return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=may_be_infinite))


def _holds_bool(value: Any) -> bool:
    return any(map(_holds_bool, value)) if isinstance(value, list) else isinstance(value, bool)


def _named(hint: Any) -> str:
    """A type for a message."""
    return "a number" if hint in (int, float) else str(getattr(hint, "__name__", hint))


def _too_large(value: Any) -> bool:
    """Whether it is, or holds, an integer that no array can hold."""
    if isinstance(value, tuple):
        return any(map(_too_large, value))
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _default(f: dataclasses.Field[Any]) -> Any:
    return f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default


def _explicit(config: Any, cls: type[Any]) -> dict[str, Any]:
    """What a default instance sets differently from its class's defaults, as that of `train_dynamics` does."""
    plain, base = to_dict(config), to_dict(cls())
    return {key: value for key, value in plain.items() if value != base[key]}


def _nearest(key: str, prefix: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    return f"; nearest: {prefix + close[0]!r}" if close else f"; known: {', '.join(prefix + name for name in known)}"
