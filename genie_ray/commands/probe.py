"""`genie-ray games probe`: find out what each action of a game does, by playing it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genie_ray.base.session import usable_cpus
from genie_ray.commands.options import Integrations


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
