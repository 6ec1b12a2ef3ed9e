"""`genie-ray sweep`: explorers under different settings, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genie_ray.commands.options import Address, Overrides, choose_games


def sweep(
    config: Annotated[Path, typer.Argument(help="YAML file, e.g. experiments/sweeps/topk_epsilon.yaml.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Output directory; default: runs/<file name>.")] = None,
    address: Address = None,
) -> None:
    """Train explorers under different settings side by side and compare what they find. Settings: run.*, samples, …"""
    import dataclasses

    from genie_ray.games.roms import add_integrations
    from genie_ray.sweeping.plan import load_sweep
    from genie_ray.sweeping.run import run_sweep

    more = [*(overrides or []), *([f"run.ray.address={address}"] if address else [])]
    settings = load_sweep(config, more)
    add_integrations(settings.run.env.integrations)
    run = dataclasses.replace(settings.run, games=choose_games(settings.run))
    table = run_sweep(dataclasses.replace(settings, run=run), out or Path("runs") / config.stem)
    typer.echo(table.read_text())
    typer.echo(f"table and plots: {table.parent}")
