"""In what a row differs from its paper's: found by comparing the recipes, so that nothing can be forgotten.

A recipe holds all settings of a row's whole chain. What differs is told with its sizes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from genie_ray.reproducing.description import ROLES, TableText

INPUTS = {role for roles in ROLES.values() for role in roles} | {"model", "test"}
SEEDS = ("seed",)
SIZES = (
    "games",
    "amount",
    "max_episode_steps",
    "kind",
    "iterations",
    "epochs",
    "batch_size",
    "window",
    "patch_size",
    "dim",
    "blocks",
    "max_frames",
    "codes",
    "windows_per_game",
    "predicted_frames",
    "steps",
)
"""Last parts of the settings that are told first, in this order; the others are counted."""


class Change(NamedTuple):
    """A setting that differs."""

    job: str  # the kind of the job that has it; of a play its purpose
    setting: str
    ours: Any
    papers: Any


def changes(ours: Mapping[str, Any], papers: Mapping[str, Any], table: TableText) -> list[Change]:
    """All in which a row's expanded recipe differs from that of the published scale, each once, sizes first."""
    found: dict[str, Change] = {}
    for walked in _walk(ours, papers):
        change = _counted(walked, table) if walked.setting == "games" else walked
        if change is not None:
            found.setdefault(repr(change), change)
    return sorted(found.values(), key=_rank)


def told(found: Sequence[Change]) -> str:
    """The sizes that differ, job by job, ours before the paper's in brackets, and how many further settings do."""
    by_job: dict[str, list[str]] = {}
    for change in found:
        if _rank(change) < len(SIZES):
            words = f"{_name(change)} {_short(change.ours)} ({_short(change.papers)})"
            by_job.setdefault(change.job, []).append(words)
    parts = [f"{job}: {', '.join(words)}" for job, words in by_job.items()]
    rest = len(found) - sum(map(len, by_job.values()))
    return "; ".join([*parts, *([f"and {rest} further settings (rows.json)"] if rest else [])]) or "nothing"


def _name(change: Change) -> str:
    """A setting's last part, with the first or the one before where it alone says little."""
    parts = change.setting.split(".")
    if parts[0] == "latent_actions":
        return f"latent actions' {parts[-1]}"
    return " ".join(parts[-2:]) if parts[-1] in ("kind", "steps") else parts[-1]


def _walk(ours: Mapping[str, Any], papers: Mapping[str, Any]) -> Iterator[Change]:
    kind = f"{ours['purpose']} play" if ours["kind"] == "play" else str(ours["kind"])
    if kind == "gathered":  # of one play for each game: the first stands for all
        yield from _leaves(kind, "games", ours["games"], papers["games"])
        yield from _walk(*(each[each["games"][0]] for each in (ours, papers)))
        return
    for key in dict.fromkeys([*ours, *papers]):
        if _is_input(key, ours) and _is_input(key, papers):
            yield from _walk(ours[key], papers[key])
        elif key not in SEEDS:
            yield from _leaves(kind, str(key), ours.get(key), papers.get(key))


def _is_input(key: str, recipe: Mapping[str, Any]) -> bool:
    return key in INPUTS and isinstance(recipe.get(key), Mapping) and "kind" in recipe[key]


def _leaves(kind: str, key: str, ours: Any, papers: Any) -> Iterator[Change]:
    if key != "amount" and isinstance(ours, Mapping) and isinstance(papers, Mapping):
        for part in dict.fromkeys([*ours, *papers]):
            yield from _leaves(kind, f"{key}.{part}", ours.get(part), papers.get(part))
    elif ours != papers:
        yield Change(kind, key, ours, papers)


def _counted(change: Change, table: TableText) -> Change | None:
    """A change of games as their numbers; None if the sets are equally large."""
    for name, scale in table.scales["published"].games.items():
        if list(scale) == list(change.papers) and name in table.paper_games:
            count = table.paper_games[name]
            return None if len(change.ours) == count else change._replace(ours=len(change.ours), papers=count)
    return None if len(change.ours) == len(change.papers) else change


def _rank(change: Change) -> int:
    last = change.setting.rpartition(".")[2]
    return SIZES.index(last) if last in SIZES else len(SIZES)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{count:,} {unit}" for unit, count in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
