"""Experiment results: rows that are computed once and cached in files, and tables of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from genie_ray.base.files import write_atomically
from genie_ray.base.settings import describe_changes, differences

if TYPE_CHECKING:
    from genie_ray.storage.paths import StoredPath

Row = dict[str, Any]


def kept_row(
    file: StoredPath, settings: Mapping[str, Any], make: Callable[[], Row], *, free: Sequence[str] = ()
) -> Row:
    """The row cached in a JSON file; if there is none, `make` makes it and it is written with its settings.

    Args:
        free: key prefixes of settings that do not affect the row.

    Raises:
        ValueError: the cached row was made with other settings.
    """
    if file.exists():
        row = json.loads(file.read_text())
        changed = [line for line in differences(row["settings"], settings) if not line.startswith(tuple(free))]
        if changed:
            raise ValueError(f"{file} was made with other settings ({describe_changes(changed)}): give another --out")
        return row
    row = {**make(), "settings": dict(settings)}
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(row)
    write_atomically(file, lambda path: path.write_text(text))
    return row


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; its columns are the first row's keys."""
    lines = [f"| {' | '.join(rows[0])} |", "|" + "---|" * len(rows[0])]
    lines += [f"| {' | '.join(map(str, row.values()))} |" for row in rows]
    return "\n".join(lines) + "\n"
