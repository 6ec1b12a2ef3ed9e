"""`genie-ray reproduce`: a paper's table. Thin: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genie_ray.commands.options import Address, Overrides, on_a_disk


def reproduce(
    table: Annotated[str, typer.Argument(metavar="TABLE", help="tab2, tab4, tab5, tab6, …, or a YAML file's path.")],
    overrides: Overrides = None,
    scale: Annotated[
        str, typer.Option(help="tiny: every part runs, in minutes; small: a night on two cores; published.")
    ] = "tiny",
    out: Annotated[
        Path,
        typer.Option(
            help="Directory of results and jobs; tables that share it share what they have in common.",
            callback=on_a_disk,
        ),
    ] = Path("runs/reproduce"),
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="ROW", help="Row, 'ROW' or 'SECTION: ROW', repeatable; default: all."),
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Repeatable; default: the scale's.")] = None,
    games: Annotated[
        list[str] | None,
        typer.Option(metavar="SET=GAME", help="A game, query or selection of one of the table's sets, repeatable."),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Make nothing; print what would be made, and its cost.")] = False,
    address: Address = None,
) -> None:
    """Make a table of the papers: collect, train, evaluate what is missing, and put the papers' figures beside ours.

    Settings are laid over those of all jobs; what a row's label says cannot be changed by them.
    """
    from genie_ray.base.files import told_if_full
    from genie_ray.base.settings import load_values
    from genie_ray.games.roms import add_integrations
    from genie_ray.reproducing.cost import print_cost
    from genie_ray.reproducing.plan import read_plan
    from genie_ray.reproducing.run import reproduce as make

    values = load_values(None, [*(overrides or []), *([f"ray.address={address}"] if address else [])])
    add_integrations(values.get("env", {}).get("integrations", ()))
    sets: dict[str, list[str]] = {}
    for entry in games or []:
        name, separator, listed = entry.partition("=")
        if not separator or not listed:
            raise ValueError(f"--games {entry!r}: expected SET=GAME")
        sets.setdefault(name, []).append(listed)
    chosen = read_plan(table, scale, only=only or (), seeds=seed or (), games=sets, overrides=values)
    if plan:
        print_cost(chosen, out)
        return
    with told_if_full(out):
        path = make(chosen, out)
    typer.echo(path.read_text())
    typer.echo(f"table: {path}")
