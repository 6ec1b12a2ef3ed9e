"""`genie-ray games probe` and `games influence`: what a game's actions do, and how much, found by playing it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genie_ray.base.session import usable_cpus
from genie_ray.commands.options import ConfigFile, Games, Integrations, Overrides, choose_games, load_settings

if TYPE_CHECKING:
    from genie_ray.probing.influence import Influence


def probe(
    games: Annotated[list[str], typer.Argument(metavar="GAME...", help="Game ids.")],
    out: Annotated[Path, typer.Option(help="Directory for film strips, clips and measurements.")] = Path("probe"),
    csv: Annotated[Path | None, typer.Option(help="CSV file to write the labels to; default: OUT/games.csv.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also overwrite rows that a person confirmed.")
    ] = False,
    action_set: Annotated[str, typer.Option(help="A named action set, or comma-separated actions.")] = "paper",
    before: Annotated[
        str, typer.Option(help="Comma-separated buttons that get past a start screen, e.g. START,START.")
    ] = "",
    contexts: Annotated[int, typer.Option(help="Game states from which each action is held.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the random play that leads to these states.")] = 0,
    integrations: Integrations = None,
    workers: Annotated[int | None, typer.Option(help="Games played at once; default: one per CPU.")] = None,
) -> None:
    """Hold each action, and no-op from the same states, and propose what the action does from the differences.

    Then confirm by eye: look at OUT/index.html, correct the CSV file and write `viewed` into its column `source`.
    """
    from genie_ray.probing.config import ProbeConfig
    from genie_ray.probing.label_file import write_labels
    from genie_ray.probing.run import probe_games

    config = ProbeConfig(
        action_set=action_set,
        before=before,
        contexts=contexts,
        seed=seed,
        integrations=tuple(map(str, integrations or [])),
    )
    table = csv or out / "games.csv"
    for game, proposals in probe_games(games, out, config, workers=usable_cpus() if workers is None else workers):
        kept = write_labels(table, {game: {p.action: p.label for p in proposals}}, overwrite=overwrite)
        typer.echo(f"{game}{' (confirmed by a person: its row in the CSV file stays)' if kept else ''}")
        for proposal in proposals:
            typer.echo(f"  {proposal.action} → {proposal.label}: {proposal.evidence}")
    typer.echo(f"labels: {table}\npictures: {out / 'index.html'}")


def influence(
    config: ConfigFile = None,
    games: Games = None,
    states: Annotated[int, typer.Option(help="Game states from which actions are tried.")] = 48,
    steps: Annotated[int, typer.Option(help="Steps that are played from each state.")] = 4,
    seed: Annotated[int, typer.Option(help="Seed of the random play that leads to these states.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Games played at once; default: one per CPU.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Also write the measurements to this CSV file.")] = None,
    overrides: Overrides = None,
) -> None:
    """Measure how much of what changes on the screen the actions decide: play on twice from the same states.

    A world model can obey only as far as its game does, so choose games by this before training. "decided" is the share
    of the picture's change, as squared error, that depends on the actions, one step later and after all --steps;
    "copying" what repeating the state's frame scores then; "next frames" the number of different frames
    that the actions lead to in one step; "dead start" the number of steps at an episode's start in which no action
    shows.
    """
    settings = load_settings(config, overrides, None)
    from genie_ray.probing.influence import measure_games

    found: list[Influence] = []
    for measured in measure_games(
        choose_games(settings, games),
        settings.env,
        states=states,
        steps=steps,
        seed=seed,
        workers=usable_cpus() if workers is None else workers,
    ):
        found.append(measured)
        if csv is not None:
            _write(csv, found)
    _print(found)


COLUMNS = ("game", "states", "decided, 1 step", "decided, all", "copying, dB", "next frames", "dead start")


def _rows(found: list[Influence]) -> list[tuple[str, ...]]:
    """Highest share first. Copying a state's frame is scored against the frames that follow."""
    import math

    return [
        (
            one.game.removesuffix("-v0"),
            str(one.states),
            f"{one.shares[0]:.2f}",
            f"{one.shares[-1]:.2f}",
            f"{-10 * math.log10(max(one.changed[-1], 1e-10)):.1f}",
            f"{one.distinct:.1f}",
            "never over" if one.dead_start is None else str(one.dead_start),
        )
        for one in sorted(found, key=lambda one: one.shares[-1], reverse=True)
    ]


def _print(found: list[Influence]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*COLUMNS)
    for row in _rows(found):
        table.add_row(*row)
    Console().print(table)


def _write(path: Path, found: list[Influence]) -> None:
    import csv

    from genie_ray.base.files import write_atomically

    def write(partial: Path) -> None:
        with partial.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *_rows(found)])

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)
