"""`genie-ray roms`: import and list game ROMs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

roms_app = typer.Typer(no_args_is_help=True, help="Game ROMs: import and list them.")


@roms_app.command("import")
def roms_import(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files, zip archives or directories.")] = None,
    from_ale: Annotated[bool, typer.Option("--from-ale", help="The Atari 2600 ROMs that ale-py brings.")] = False,
) -> None:
    """Import ROMs into Stable-Retro."""
    from genie_ray.envs import roms

    if not paths and not from_ale:
        raise ValueError("nothing to import: give files or directories, or --from-ale")
    games = sorted({*(roms.import_from_ale() if from_ale else []), *(roms.import_roms(paths) if paths else [])})
    typer.echo(f"{len(games)} games: {', '.join(games)}")


@roms_app.command("list")
def roms_list(
    which: Annotated[Literal["installed", "known"], typer.Argument(help="Games with a ROM, or all.")] = "installed",
) -> None:
    """List the games that can be played."""
    from genie_ray.envs import roms

    for game in roms.installed_games() if which == "installed" else roms.known_games():
        typer.echo(game)
