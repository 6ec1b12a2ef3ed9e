"""Writing labels to a CSV file that the catalog reads; rows that a person confirmed are kept.

The layout is that of `genie_ray/games/games.csv`, described in `genie_ray/games/labels.py`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from genie_ray.base.files import write_atomically
from genie_ray.games.labels import CONTROL_ACTIONS, OWN_COLUMNS, fold, read_labels, read_rows

PROPOSED, CONFIRMED = "probe", "viewed"  # values of the column `source`


def write_labels(path: Path, controls: Mapping[str, Mapping[str, str]], *, overwrite: bool = False) -> tuple[str, ...]:
    """Writes control labels to a new or existing file, sorted by game.

    Args:
        controls: game → action → label. Actions without a column are skipped.
        overwrite: whether to replace rows that a person confirmed.

    Returns:
        The games whose row was kept because a person confirmed it.

    Raises:
        ValueError: the file is in another layout or damaged.
    """
    rows: dict[str, dict[str, str]] = {}
    if path.exists():
        if (layout := read_labels(path).layout) != "ours":
            raise ValueError(f"{path} is RetroAct's ({layout}): must have the columns {','.join(OWN_COLUMNS)}")
        header, *lines = (cells for _, cells in read_rows(path))
        for cells in lines:
            row = dict(zip(header, map(str.strip, cells), strict=True))
            rows[fold(row["game"])] = row
    kept = []
    for game, labels in controls.items():
        row = rows.setdefault(fold(game), dict.fromkeys(OWN_COLUMNS, "") | {"game": game.removesuffix("-v0")})
        if row["source"] == CONFIRMED and not overwrite:
            kept.append(game)
            continue
        row |= {action: labels[action] for action in CONTROL_ACTIONS if action in labels}
        row["source"] = PROPOSED
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, OWN_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for _, row in sorted(rows.items()))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: temporary.write_text(buffer.getvalue(), encoding="utf-8"))
    return tuple(kept)
