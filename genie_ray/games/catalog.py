"""The catalog: all games with their labels, and the choice of games to play.

It holds every game that Stable-Retro knows. Labels come from our own file, for the games that run out of the box, and
from files that a user gives, such as RetroAct's (`genie_ray/games/labels.py`). Games to play are named by id, by query
or by the name of a selection:

* `Kangaroo-Atari2600`, with or without `-v0`;
* `genre=platformer,motion=free,JUMP=jump,limit=20`: what `Catalog.select` finds;
* `default`: the games that run out of the box; `platformers-200` and `aligned-50`: the training sets of GenieRedux-G
  (Savov et al., CVPR 2025, arXiv 2504.02515, section 5), which need RetroAct's files.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genie_ray.games.labels import CONTROL_ACTIONS, LABELS, OWN_FILE, Entry, Layout, control, fold, label, read_labels
from genie_ray.games.roms import installed_games, known_games, require_rom, resolve_game

SELECTIONS = ("default", "platformers-200", "aligned-50")
LABELLED_ACTIONS = (*CONTROL_ACTIONS, "SECONDARY")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The requested games, in order."""

    installed: tuple[str, ...]
    missing: tuple[str, ...]  # games of queries and named selections whose ROM is not installed


class Catalog:
    """Games and their labels.

    Args:
        files: CSV files of labels, read after ours. If several label a game, the later one wins, label by label.

    Raises:
        ValueError: a file that cannot be read, see `read_labels`.
    """

    def __init__(self, files: Iterable[str | Path] = ()) -> None:
        self._entries = {game: Entry(game=game) for game in known_games()}
        ids = {fold(game): game for game in self._entries}
        self._labelled: dict[Layout, list[str]] = {"retroact_tags": [], "retroact_controls": [], "ours": []}
        own = read_labels(OWN_FILE)
        self._default = [ids[fold(entry.game)] for entry in own.entries]
        for file in (own, *(read_labels(Path(path)) for path in files)):
            for entry in file.entries:
                game = ids.get(fold(entry.game), entry.game)  # RetroAct may know games that Stable-Retro does not
                self._entries[game] = _merged(self._entries.get(game), dataclasses.replace(entry, game=game))
                self._labelled[file.layout].append(game)

    def __getitem__(self, game: str) -> Entry:
        """The entry of a game that Stable-Retro knows, by id with or without `-v0`."""
        return self._entries[resolve_game(game)]

    def select(
        self,
        *,
        genre: str | None = None,
        motion: str | None = None,
        view: str | None = None,
        controls: Mapping[str, str] | None = None,
        installed: bool | None = None,
        limit: int | None = None,
    ) -> list[Entry]:
        """The games with these labels, sorted by name; a game without labels matches none.

        Args:
            genre, motion, view: by word or by RetroAct's tag (`platformer` or `pl`).
            controls: action → what it does, as in `{"JUMP": "jump"}`.
            installed: with a ROM installed (True), without one (False), or either (None).
            limit: at most this many, the first by name.

        Raises:
            ValueError: an unknown label or action; a limit below 1.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"limit is {limit}: must be at least 1")
        wanted = {kind: label(kind, value) for kind, value in zip(LABELS, (view, motion, genre), strict=True) if value}
        for action, value in (controls or {}).items():
            if action not in LABELLED_ACTIONS:
                raise ValueError(f"unknown action {action!r}: allowed are {', '.join(LABELLED_ACTIONS)}")
            control(action, value)
        found = [
            entry
            for entry in sorted(self._entries.values(), key=lambda entry: entry.game)
            if all(getattr(entry, kind) == value for kind, value in wanted.items())
            and all(entry.controls.get(action) == value for action, value in (controls or {}).items())
        ]
        if installed is not None:
            present = set(installed_games())
            found = [entry for entry in found if (entry.game in present) == installed]
        return found[:limit]

    def named(self, selection: str) -> list[Entry]:
        """The games of a named selection, installed or not.

        Raises:
            ValueError: no such selection, or the file that it needs was not given.
        """
        if selection == "default":
            return [self._entries[game] for game in self._default]
        if selection not in SELECTIONS:
            raise ValueError(f"unknown selection {selection!r}: allowed are {', '.join(SELECTIONS)}")
        layout: Layout = "retroact_tags" if selection == "platformers-200" else "retroact_controls"
        games = self._labelled[layout]
        if not games:
            what = {"retroact_tags": "list of games", "retroact_controls": "control labels"}[layout]
            raise ValueError(
                f"selection {selection} is taken from RetroAct's {what}: give its CSV file "
                "with --labels FILE or catalog=[FILE]"
            )
        entries = [self._entries[game] for game in sorted(games)]
        if selection == "platformers-200":
            return [entry for entry in entries if entry.genre == "platformer"][:200]
        return entries

    def query(self, text: str) -> list[Entry]:
        """The games of a query `key=value,…`: genre, motion, view, limit, or an action and what it does.

        Raises:
            ValueError: a key or a value that is not allowed.
        """
        labels: dict[str, str] = {}
        controls: dict[str, str] = {}
        limit = None
        for term in text.split(","):
            key, _, value = (part.strip() for part in term.partition("="))
            if key in LABELS:
                labels[key] = value
            elif key in LABELLED_ACTIONS:
                controls[key] = value
            elif key == "limit" and value.isdigit():
                limit = int(value)
            else:
                keys = ", ".join((*LABELS, *LABELLED_ACTIONS))
                raise ValueError(f"query {text!r}: {term!r} is not one of limit=NUMBER or key=value with {keys}")
        return self.select(**labels, controls=controls, limit=limit)  # type: ignore[arg-type]  # keys are checked

    def choose(self, names: Sequence[str]) -> Choice:
        """The games that ids, queries and selections name, each once, split by whether their ROM is installed.

        Raises:
            ValueError: an unknown game, selection or label; an id whose ROM is not installed; a query that no game
                matches.
        """
        games: dict[str, bool] = {}
        present = set(installed_games())
        for name in names:
            if "=" not in name and name not in SELECTIONS:
                game = resolve_game(name)
                require_rom(game)
                games[game] = True
                continue
            entries = self.query(name) if "=" in name else self.named(name)
            if not entries:
                raise ValueError(f"no game is labelled {name}")
            for entry in entries:
                games.setdefault(entry.game, entry.game in present)
        return Choice(
            installed=tuple(game for game, here in games.items() if here),
            missing=tuple(game for game, here in games.items() if not here),
        )


def _merged(before: Entry | None, entry: Entry) -> Entry:
    """The labels of an entry, and the earlier ones where it has none."""
    if before is None:
        return entry
    values = {f.name: getattr(entry, f.name) for f in dataclasses.fields(Entry)}
    given = {name: value for name, value in values.items() if value is not None}
    return dataclasses.replace(before, **given | {"controls": {**before.controls, **entry.controls}})
