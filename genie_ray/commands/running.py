"""`genie-ray run` and `genie-ray report`: the whole loop, and its report. Thin: parse, call, print."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from genie_ray.commands.options import Address, Overrides, choose_games, load_settings


def run(
    config: Annotated[Path, typer.Argument(help="YAML preset, e.g. experiments/demo.yaml.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default: runs/<preset name>.")] = None,
    address: Address = None,
) -> None:
    """Run the whole loop: random play, world model, explorer, explored play, fine-tuning (decoder, then \
dynamics), evaluation, report."""
    settings = load_settings(config, overrides, address)
    settings = dataclasses.replace(settings, games=choose_games(settings))
    from genie_ray.loop import run_loop
    from genie_ray.report.page import print_table

    directory = out or Path("runs") / config.stem
    path = run_loop(settings, directory)
    print_table(directory)
    typer.echo(f"report: {path}")


def report(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    upscaler: Annotated[
        Path | None, typer.Option(help="Upscaler checkpoint; the report then also shows frames enlarged by it.")
    ] = None,
) -> None:
    """Rewrite RUN/report.html and print its tables."""
    from genie_ray.report.page import print_table, write_report

    if upscaler is not None:
        from genie_ray.evaluating.upscaling import upscale_run

        upscale_run(directory, upscaler)
    path = write_report(directory)
    print_table(directory)
    typer.echo(f"report: {path}")
