"""Whether a row is what its label says: what its recipe holds, and in what it differs from an earlier row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from genie_ray.base.files import shown
from genie_ray.base.settings import describe_changes, differences
from genie_ray.reproducing.description import PictureText, RowText
from genie_ray.reproducing.graph import Job


class Compared(NamedTuple):
    """A row with what it is made of."""

    text: RowText
    section: str
    jobs: Mapping[int, Job]


def check_label(text: RowText | PictureText, jobs: Mapping[int, Job], title: Mapping[str, Any]) -> None:
    """Requires a row, or a picture, to be made as its label says, and as the table's title does.

    Raises:
        ValueError: at a place of its recipe stands something else.
    """
    for job in jobs.values():
        recipe = job.expanded | ({"scored": text.scored} if isinstance(text, RowText) else {})
        for place, meant in {**title, **text.means}.items():
            found = at(recipe, place, text.label)
            if found != meant:
                raise ValueError(f"{text.label!r} means {place} = {shown(meant)}, but it would be {shown(found)}")


def at(recipe: Mapping[str, Any], place: str, label: str) -> Any:
    """What stands at a place of an expanded recipe."""
    value: Any = recipe
    for part in place.split("."):
        if not isinstance(value, Mapping) or part not in value:
            known = f"; there are {', '.join(value)}" if isinstance(value, Mapping) else ""
            raise ValueError(f"{label!r} means {place}, which its recipe lacks at {part!r}{known}")
        value = value[part]
    return value


def check_differences(rows: Sequence[Compared]) -> None:
    """Requires additive rows to add what they say, and nothing else.

    Raises:
        ValueError: one differs from its row elsewhere, or not at all where it says so.
    """
    by_label = {(row.section, row.text.label): row for row in rows}
    for row in rows:
        other, places = row.text.differs_from, row.text.differs_in
        if other is None:
            continue
        for seed, job in row.jobs.items():
            lines = differences(by_label[row.section, other].jobs[seed].expanded, job.expanded)
            if stray := [line for line in lines if not _of(line, places)]:
                raise ValueError(f"the row {row.text.label!r} also differs from {other!r} in {describe_changes(stray)}")
            if same := [place for place in places if not any(_of(line, (place,)) for line in lines)]:
                raise ValueError(f"the row {row.text.label!r} does not differ from {other!r} in {same[0]}, as it says")


def _of(line: str, places: Sequence[str]) -> bool:
    """Whether a line of `differences` is of one of the places, or of something in it."""
    key = line.partition(":")[0]
    return any(key == place or key.startswith(f"{place}.") for place in places)
