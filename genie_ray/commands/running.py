"""`genie-ray run`, `report`, `sweep`, `submit`: the whole loop, its report, sweeps, jobs. Thin: parse, call, print."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from pathlib import Path
from typing import Annotated

import typer

from genie_ray.commands.options import Address, Overrides, choose_games, load_settings, on_a_disk


def run(
    config: Annotated[Path, typer.Argument(help="YAML preset, e.g. experiments/demo.yaml.")],
    overrides: Overrides = None,
    out: Annotated[
        str | None, typer.Option(help="Run directory, or a URI (s3://bucket/run); default: runs/<preset name>.")
    ] = None,
    address: Address = None,
) -> None:
    """Run the whole loop: random play, world model, explorer, explored play, fine-tuning (decoder, then \
dynamics), evaluation, report."""
    settings = load_settings(config, overrides, address)
    settings = dataclasses.replace(settings, games=choose_games(settings))
    from genie_ray.base.files import told_if_full
    from genie_ray.loop import run_loop
    from genie_ray.report.page import print_table
    from genie_ray.storage.paths import resolve

    directory = resolve(out or f"runs/{config.stem}")
    with told_if_full(directory):
        path = run_loop(settings, directory)
    print_table(directory)
    typer.echo(f"report: {path}")


def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run directory, or its URI.")],
    upscaler: Annotated[
        str | None, typer.Option(help="Upscaler checkpoint; the report then also shows frames enlarged by it.")
    ] = None,
) -> None:
    """Rewrite RUN/report.html and print its tables."""
    from genie_ray.base.files import told_if_full
    from genie_ray.report.page import print_table, write_report
    from genie_ray.storage.paths import resolve

    directory = resolve(run)
    with told_if_full(directory):
        if upscaler is not None:
            from genie_ray.evaluating.upscaling import upscale_run

            upscale_run(directory, resolve(upscaler))
        path = write_report(directory)
    print_table(directory)
    typer.echo(f"report: {path}")


def sweep(
    config: Annotated[Path, typer.Argument(help="YAML file, e.g. experiments/sweeps/topk_epsilon.yaml.")],
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Output directory; default: runs/<file name>.", callback=on_a_disk)
    ] = None,
    address: Address = None,
) -> None:
    """Train explorers under different settings side by side and compare what they find. Settings: run.*, samples, …"""
    from genie_ray.base.files import told_if_full
    from genie_ray.games.roms import add_integrations
    from genie_ray.sweeping.plan import load_sweep
    from genie_ray.sweeping.run import run_sweep

    more = [*(overrides or []), *([f"run.ray.address={address}"] if address else [])]
    settings = load_sweep(config, more)
    add_integrations(settings.run.env.integrations)
    run = dataclasses.replace(settings.run, games=choose_games(settings.run))
    place = out or Path("runs") / config.stem
    with told_if_full(place):
        table = run_sweep(dataclasses.replace(settings, run=run), place)
    typer.echo(table.read_text())
    typer.echo(f"table and plots: {table.parent}")


def submit(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND...", help="What to run, e.g. -- run experiments/demo.yaml."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="The cluster's job server; default: RAY_API_SERVER_ADDRESS, or port 8265 here.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The job's id; default: a new one.", show_default=False)] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once instead of following the output.")] = False,
    status: Annotated[bool, typer.Option("--status", help="List the jobs.")] = False,
    logs: Annotated[str | None, typer.Option(metavar="JOB", help="Follow a job's output.", show_default=False)] = None,
    stop: Annotated[str | None, typer.Option(metavar="JOB", help="Stop a job.", show_default=False)] = None,
) -> None:
    """Run a command as a job on a Ray cluster, with this clone's code (clusters/travels.txt), and follow its output.

    The job goes on when the terminal is closed. Relative paths point into the job's copy of the code: give outputs and
    data on storage that all nodes see.
    """
    from genie_ray.submitting import jobs

    asked = [bool(command), status, logs is not None, stop is not None]
    if sum(asked) != 1:
        raise ValueError("give one of: -- COMMAND, --status, --logs JOB, --stop JOB")
    if command:
        _refuse_lost_outputs(command)
    client = jobs.client_at(address)
    if status:
        for known, state, what in jobs.listed(client):
            typer.echo(f"{known}  {state:9}  {what}")
        return
    if stop is not None:
        jobs.stop(client, stop)
        typer.echo(f"{stop}: asked to stop; the same command continues from what was saved")
        return
    job = logs
    if command:
        job = jobs.submit(client, command, name=name)
        typer.echo(f"job {job}; follow: genie-ray submit --logs {job}; stop: genie-ray submit --stop {job}", err=True)
        if detach:
            typer.echo(job)
            return
    assert job is not None
    try:
        end = jobs.follow(client, job, lambda text: typer.echo(text, nl=False))
    except KeyboardInterrupt:
        typer.echo(f"\n{job} goes on; follow it again: genie-ray submit --logs {job}", err=True)
        return
    why = jobs.failure_of(client, job) if end == "FAILED" else ""
    typer.echo(f"{job}: {end.lower()}{': ' * bool(why)}{why}", err=True)
    if end != "SUCCEEDED":
        sys.exit(1)


def _refuse_lost_outputs(command: list[str]) -> None:
    if command[0] in ("run", "reproduce") and not any(word.startswith("--out") for word in command):
        raise ValueError(
            f"give `{command[0]}` an --out on storage that all nodes see: its default lies in the job's own copy"
        )
    following = dict(itertools.pairwise(command))
    if (out := following.get("--out")) is not None and not (Path(out).is_absolute() or "://" in out):
        raise ValueError(f"--out is {out!r}, which lies in the job's own copy: give an absolute path on shared storage")
