"""Labels of games: how a game looks, how its player moves, what kind of game it is, and what each action does.

The words are RetroAct's (Savov et al., CVPR 2025, arXiv 2504.02515, section 3), with a few more for what actions do in
games that are not platformers. Three CSV layouts are read, distinguished by their columns:

* RetroAct's list of games: `game,tags`, as in `SonicTheHedgehog-Genesis,side h pl`;
* RetroAct's control labels: `game,RIGHT,LEFT,UP,DOWN,ACTION_JUMP,ACTION_SECONDARY,transition,Background_Changes`;
* ours: `game,view,motion,genre,RIGHT,LEFT,UP,DOWN,JUMP,source,notes`. `games.csv` beside this file labels the games
  that run out of the box; `genie-ray games probe` writes more such files.

RetroAct's files are read as published: labels as its short tags, ids without `-v0` or in lower case.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from genie_ray.base.files import shown

Layout = Literal["retroact_tags", "retroact_controls", "ours"]

OWN_FILE = Path(__file__).with_name("games.csv")

# Word → RetroAct's tag for it.
VIEWS: dict[str, str] = {"side": "side", "top": "top", "first_person": "1p", "third_person": "3p", "multi": "multi"}
MOTIONS: dict[str, str] = {"horizontal": "h", "vertical": "v", "free": "free", "fixed": "fixed", "tube": "tube"}
"""Along which of the screen's axes the player can move."""
GENRES: dict[str, str] = {
    "platformer": "pl",
    "flying_platformer": "pl_fly",
    "space_shooter": "space_shooter",
    "shooter": "shooter",
    "fight": "fight",
    "action": "action",
    "sport": "sport",
    "race": "race",
    "pong": "pong",
    "pinball": "pinball",
    "maze": "maze",
    "grid": "grid",
    "tetris": "tetris",
    "sim": "sim",
    "other": "other",
}
LABELS: dict[str, dict[str, str]] = {"view": VIEWS, "motion": MOTIONS, "genre": GENRES}

CONTROL_ACTIONS = ("RIGHT", "LEFT", "UP", "DOWN", "JUMP")
"""The actions whose effect is labelled: the paper's."""
CONTROLS = (
    *("none", "right", "left", "climb", "crouch", "jump", "shoot", "strike", "punch"),  # RetroAct's
    *("up", "down", "turn_right", "turn_left", "accelerate", "brake", "use"),  # ours
)
SOURCES = ("probe", "viewed")
"""How our control labels were found: proposed from measurement, or confirmed by looking at what each action does."""

OWN_COLUMNS = ("game", *LABELS, *CONTROL_ACTIONS, "source", "notes")
TAG_COLUMNS = ("game", "tags")
RETROACT_ACTIONS = {"RIGHT": "RIGHT", "LEFT": "LEFT", "UP": "UP", "DOWN": "DOWN", "ACTION_JUMP": "JUMP"}
CONTROL_COLUMNS = ("game", *RETROACT_ACTIONS, "ACTION_SECONDARY", "transition", "Background_Changes")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known about a game; None or a missing action: not labelled."""

    game: str  # as written in the file
    view: str | None = None
    motion: str | None = None
    genre: str | None = None
    controls: Mapping[str, str] = field(default_factory=dict)  # action → what it does; also SECONDARY, from RetroAct
    scenes_change: bool | None = None  # RetroAct's `transition`
    backgrounds_change: bool | None = None


@dataclass(frozen=True, kw_only=True)
class LabelFile:
    """One CSV file of labels, in the order of its lines."""

    path: Path
    layout: Layout
    entries: tuple[Entry, ...]


def read_labels(path: Path) -> LabelFile:
    """Reads a CSV file in any of the three layouts.

    Raises:
        ValueError: one line that names the file, the line and what is wrong with it.
    """
    rows = read_rows(path)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{path} is empty: a CSV file of game labels is needed")
    header = first[1]
    layout, columns, parse = _layout(header)
    for fault, names in (
        ("has no column", [name for name in columns if name not in header]),
        ("has an unknown column", [name for name in header if name not in columns]),
        ("has a repeated column", [name for name in columns if header.count(name) > 1]),
    ):
        if names:
            raise ValueError(
                f"{path}, line {first[0]}: {fault} {shown(names[0])}: the columns must be {','.join(columns)}"
            )
    entries: list[Entry] = []
    line_of: dict[str, int] = {}
    for line, cells in rows:
        try:
            if len(cells) != len(header):
                raise ValueError(f"{len(cells)} fields where the header has {len(header)}")
            entry = parse(dict(zip(header, (cell.strip() for cell in cells), strict=True)))
            if not entry.game:
                raise ValueError("no game")
            if (earlier := line_of.setdefault(fold(entry.game), line)) != line:
                raise ValueError(f"{shown(entry.game)[1:-1]} is labelled twice, first in line {earlier}")
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: {error}") from None
        entries.append(entry)
    return LabelFile(path=path, layout=layout, entries=tuple(entries))


def fold(game: str) -> str:
    """A normal form of a game's id: lower case, without `-v0`."""
    return game.casefold().removesuffix("-v0")


def label(kind: str, value: str) -> str:
    """The full word for a view, motion or genre, given as that word or as RetroAct's tag.

    Raises:
        ValueError: there is no such label; the message lists all.
    """
    words = LABELS[kind]
    for word, tag in words.items():
        if value in (word, tag):
            return word
    allowed = ", ".join(word if word == tag else f"{word} ({tag})" for word, tag in words.items())
    raise ValueError(f"unknown {kind} {shown(value)}: allowed are {allowed}")


def control(action: str, value: str) -> str:
    """A control label, checked.

    Raises:
        ValueError: there is no such label; the message lists all.
    """
    if value not in CONTROLS:
        raise ValueError(f"unknown control {action}={shown(value)}: allowed are {', '.join(CONTROLS)}")
    return value


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a CSV file that are not blank, split into fields, with their line numbers.

    Raises:
        ValueError: one line; the file is missing, or not CSV in UTF-8.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"no such file of game labels: {path}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 text (byte {content[error.start]:#04x})") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"{path}, line {line}: not text (a NUL character)")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
        if cells:
            yield reader.line_num, cells


def _layout(header: list[str]) -> tuple[Layout, tuple[str, ...], Callable[[dict[str, str]], Entry]]:
    """The layout that a header has or comes closest to."""
    if "tags" in header:
        return "retroact_tags", TAG_COLUMNS, _from_tags
    if "ACTION_JUMP" in header:
        return "retroact_controls", CONTROL_COLUMNS, _from_controls
    return "ours", OWN_COLUMNS, _from_own


def _from_tags(row: dict[str, str]) -> Entry:
    tags = row["tags"].split()
    if len(tags) != len(LABELS):
        raise ValueError(f"tags {shown(row['tags'])}: must be three: view, motion and genre, as in 'side h pl'")
    view, motion, genre = (label(kind, tag) for kind, tag in zip(LABELS, tags, strict=True))
    return Entry(game=row["game"], view=view, motion=motion, genre=genre)


def _from_controls(row: dict[str, str]) -> Entry:
    columns = RETROACT_ACTIONS | {"ACTION_SECONDARY": "SECONDARY"}
    return Entry(
        game=row["game"],
        controls={action: control(column, row[column]) for column, action in columns.items()},
        scenes_change=_flag("transition", row["transition"]),
        backgrounds_change=_flag("Background_Changes", row["Background_Changes"]),
    )


def _from_own(row: dict[str, str]) -> Entry:
    controls = {action: control(action, row[action]) for action in CONTROL_ACTIONS if row[action]}
    if row["source"] and row["source"] not in SOURCES:
        raise ValueError(f"unknown source {shown(row['source'])}: allowed are {', '.join(SOURCES)}, or none")
    if bool(controls) != bool(row["source"]):
        raise ValueError("controls and their source are given together or not at all")
    view, motion, genre = (label(kind, row[kind]) if row[kind] else None for kind in LABELS)
    return Entry(game=row["game"], view=view, motion=motion, genre=genre, controls=controls)


def _flag(column: str, value: str) -> bool:
    if value not in ("YES", "NO"):
        raise ValueError(f"{column} is {shown(value)}: allowed are YES and NO")
    return value == "YES"
