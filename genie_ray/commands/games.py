"""`genie-ray games`: which games there are, and what is known about them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genie_ray.commands import probing
from genie_ray.commands.options import Integrations

if TYPE_CHECKING:
    from rich.table import Table

    from genie_ray.games.labels import Entry

games_app = typer.Typer(
    no_args_is_help=True, help="Find games by their labels; find out what their actions do, and how much."
)

Labels = Annotated[
    list[Path] | None,
    typer.Option("--labels", help="CSV file of game labels, RetroAct's or in our layout, added to ours; repeatable."),
]


@games_app.command("list")
def games_list(
    selection: Annotated[
        str | None,
        typer.Argument(help="Named selection: default, platformers-200 or aligned-50; if omitted, all games."),
    ] = None,
    genre: Annotated[str | None, typer.Option(help="E.g. platformer, or RetroAct's tag: pl.")] = None,
    motion: Annotated[
        str | None, typer.Option(help="How the player moves: horizontal, vertical, free, fixed, tube.")
    ] = None,
    view: Annotated[str | None, typer.Option(help="side, top, first_person, third_person or multi.")] = None,
    controls: Annotated[
        list[str] | None, typer.Option(metavar="ACTION=LABEL", help="What an action does, e.g. JUMP=jump; repeatable.")
    ] = None,
    installed: Annotated[
        bool | None, typer.Option("--installed/--missing", help="Only games with, or without, a ROM here.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="List at most this many.")] = None,
    labels: Labels = None,
    integrations: Integrations = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="CSV instead of a table; always used for a pipe or file.")
    ] = False,
) -> None:
    """List games by their labels: ours for the 33 that run out of the box, and those you add with --labels."""
    from rich.console import Console

    from genie_ray.games.catalog import Catalog
    from genie_ray.games.roms import add_integrations, installed_games

    add_integrations(integrations or [])
    catalog = Catalog(labels or [])
    wanted = dict(_pair(text) for text in controls or [])
    found = catalog.select(genre=genre, motion=motion, view=view, controls=wanted, installed=installed)
    if selection is not None:
        named = {entry.game for entry in catalog.named(selection)}
        found = [entry for entry in found if entry.game in named]
    found = found[:limit]
    present = set(installed_games())
    console = Console()
    if as_csv or not console.is_terminal:
        _print_csv(found, present)
    else:
        console.print(_table(found, present))
    here = sum(entry.game in present for entry in found)
    typer.echo(f"games: {len(found)}; with a ROM here: {here}; without: {len(found) - here}", err=True)


def _pair(text: str) -> tuple[str, str]:
    action, separator, label = text.partition("=")
    if not separator:
        raise ValueError(f"--controls {text!r}: expected ACTION=LABEL, as in JUMP=jump")
    return action, label


def _columns() -> tuple[str, ...]:
    from genie_ray.games.labels import CONTROL_ACTIONS, LABELS

    return ("game", *LABELS, *CONTROL_ACTIONS, "rom")


def _cells(entry: Entry, present: set[str]) -> list[str]:
    from genie_ray.games.labels import CONTROL_ACTIONS, LABELS

    labels = [getattr(entry, kind) or "" for kind in LABELS]
    controls = [entry.controls.get(action, "") for action in CONTROL_ACTIONS]
    return [entry.game, *labels, *controls, "yes" if entry.game in present else "no"]


def _print_csv(entries: list[Entry], present: set[str]) -> None:
    import csv
    import sys

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(_columns())
    writer.writerows(_cells(entry, present) for entry in entries)


def _table(entries: list[Entry], present: set[str]) -> Table:
    from rich.table import Table

    table = Table(*_columns())
    for entry in entries:
        table.add_row(*_cells(entry, present))
    return table


games_app.command()(probing.probe)
games_app.command()(probing.influence)
