"""`genie-ray roms`: import, list and check game ROMs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from genie_ray.commands.options import Integrations

roms_app = typer.Typer(no_args_is_help=True, help="Import, list and check game ROMs.")


@roms_app.command("import")
def roms_import(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files, zip archives or directories.")] = None,
    from_ale: Annotated[bool, typer.Option("--from-ale", help="The Atari 2600 ROMs that ale-py includes.")] = False,
    procgen: Annotated[
        bool,
        typer.Option("--procgen", "--coinrun", help="CoinRun and procgen's other 15 games: installs it with pip."),
    ] = False,
    integrations: Integrations = None,
) -> None:
    """Import ROMs into Stable-Retro, and install procgen's games."""
    from genie_ray.games import roms
    from genie_ray.games.procgen import PROCGEN_GAMES, install_procgen

    if not paths and not from_ale and not procgen:
        raise ValueError("nothing to import: give files or directories, --from-ale or --procgen")
    if procgen:
        install_procgen()
        typer.echo(f"installed: {', '.join(PROCGEN_GAMES)}")
        if not paths and not from_ale:
            return
    roms.add_integrations(integrations or [])
    games = sorted({*(roms.import_from_ale() if from_ale else []), *(roms.import_roms(paths) if paths else [])})
    typer.echo(f"{len(games)} games: {', '.join(games)}")


@roms_app.command("list")
def roms_list(
    which: Annotated[
        Literal["installed", "known"], typer.Argument(help="Games with a ROM here, or all.")
    ] = "installed",
    integrations: Integrations = None,
) -> None:
    """List the games that can be played here, or all known ones."""
    from genie_ray.games import procgen, roms

    roms.add_integrations(integrations or [])
    games = roms.installed_games() if which == "installed" else roms.known_games()
    for game in (*games, *(procgen.PROCGEN_GAMES if which == "known" or procgen.has_procgen() else ())):
        typer.echo(game)


@roms_app.command("doctor")
def roms_doctor(
    paths: Annotated[list[Path], typer.Argument(help="Files, zip archives or directories.")],
    integrations: Integrations = None,
) -> None:
    """Print which game's ROM each file is, or why it is not one. Nothing is imported."""
    from collections import Counter

    from genie_ray.games import roms

    roms.add_integrations(integrations or [])
    words = {"new": "to be imported", "present": "imported already", "unusable": "not usable"}
    counts: Counter[str] = Counter()
    for found in roms.diagnose(paths):
        counts[found.state] += 1
        told = [", ".join(found.games), found.reason]
        typer.echo(f"{found.name}: {words[found.state]}: {'; '.join(part for part in told if part)}")
    typer.echo("; ".join(f"{counts[state]} {word}" for state, word in words.items()))
