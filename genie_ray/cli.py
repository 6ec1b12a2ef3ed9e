"""`genie-ray`: the loop and its stages, one command each. Thin: parse, call, print."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from genie_ray.commands import scoring, serving
from genie_ray.commands.checkpoints import checkpoint_app
from genie_ray.commands.games import games_app
from genie_ray.commands.options import (
    Address,
    ConfigFile,
    Games,
    Output,
    Overrides,
    Seed,
    choose_games,
    load_settings,
)
from genie_ray.commands.roms import roms_app
from genie_ray.commands.training import train_app

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="World models that learn games by exploring them. `genie-ray run` is the whole loop; the other commands are "
    "its stages, each of which takes artefacts and leaves one. Run again what was cut off: it continues.",
)
app.add_typer(checkpoint_app, name="checkpoint")
app.add_typer(games_app, name="games")
app.add_typer(roms_app, name="roms")
app.add_typer(train_app, name="train")

# When Serve is shut down, Ray reports its controller's unanswered calls as failures, which asks nothing of anybody.
# Read when Ray is imported, so set before that.
QUIET_RAY = {"RAY_DEDUP_LOGS_SKIP_REGEX": r"Task ServeController\."}


def main() -> None:
    """Runs the command line; what the user can mend is told in one line, with exit code 2."""
    for name, value in QUIET_RAY.items():
        os.environ.setdefault(name, value)
    try:
        app()
    except KeyboardInterrupt:
        print("interrupted: the same command continues from what is saved", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError) as error:
        if os.environ.get("GENIE_RAY_TRACEBACK"):
            raise
        from genie_ray.errors import one_line

        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="YAML preset, e.g. experiments/demo.yaml.")],
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; without one, runs/<preset's name>.")] = None,
    address: Address = None,
) -> None:
    """The whole loop: random play, world model, explorer, explored play, fine-tuning, evaluation, report."""
    settings = load_settings(config, overrides, address)
    settings = dataclasses.replace(settings, games=choose_games(settings))
    from genie_ray.loop import run_loop
    from genie_ray.report import print_table

    directory = out or Path("runs") / config.stem
    path = run_loop(settings, directory)
    print_table(directory)
    typer.echo(f"report: {path}")


@app.command()
def collect(
    output: Output,
    steps: Annotated[int, typer.Option(help="Environment steps per game.")],
    policy: Annotated[
        str, typer.Option(help="`random`, or a directory of trained agents (<directory>/<game>/module).")
    ] = "random",
    game: Games = None,
    epsilon: Annotated[float, typer.Option(min=0, max=1, help="Share of random actions mixed in.")] = 0.0,
    temperature: Annotated[float, typer.Option(min=1e-6, help="Divides a trained policy's logits.")] = 1.0,
    seed: Seed = None,
    config: ConfigFile = None,
    address: Address = None,
    overrides: Overrides = None,
) -> None:
    """Play games and store every step as a replay dataset."""
    settings = load_settings(config, overrides, address)
    games = choose_games(settings, game)
    from genie_ray import collection
    from genie_ray.session import ray_session

    player = collection.Policy(name="random")
    if policy != "random":
        player = collection.Policy(
            name=Path(policy).name, directory=Path(policy), epsilon=epsilon, temperature=temperature
        )
    with ray_session(settings.ray):
        collection.collect(
            output,
            player,
            games,
            steps,
            settings.collection,
            settings.env,
            seed=settings.seed if seed is None else seed,
        )
    typer.echo(output)


@app.command()
def explore(
    output: Output,
    world_model: Annotated[
        Path | None, typer.Option(help="World model checkpoint that judges; see reward.* for how.")
    ] = None,
    reward_service: Annotated[
        str | None, typer.Option(help="Instead: name of a reward service that runs on this cluster (serve-rewards).")
    ] = None,
    game: Games = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="One explorer of all the games (OUT/shared/module).")
    ] = False,
    config: ConfigFile = None,
    address: Address = None,
    overrides: Overrides = None,
) -> None:
    """Train explorers (OUT/<game>/module) on a world model's uncertainty. Settings: exploration.*, reward.*."""
    settings = load_settings(config, [*(overrides or []), *(["exploration.shared=true"] if shared else [])], address)
    from contextlib import ExitStack

    from genie_ray import exploration
    from genie_ray.rewards import service
    from genie_ray.session import ray_session

    if (world_model is None) == (reward_service is None):
        raise ValueError("who gives the rewards? Name one of --world-model and --reward-service")
    games = choose_games(settings, game)
    fits = {"frame_size": settings.env.frame_size, "num_actions": settings.dynamics.num_actions}
    with ray_session(settings.ray), ExitStack() as running:
        if world_model is not None:
            served = service.reward_service(world_model, settings.reward, state=output / "rewards", **fits)
            rewards = running.enter_context(served)
        else:
            assert reward_service is not None
            rewards = service.find_service(reward_service, **fits)
        for name, played in settings.exploration.agents(games).items():
            path = exploration.explore(
                output / name,
                played,
                rewards,
                settings.exploration,
                settings.env,
                world_model=world_model,
                ray=settings.ray,
                seed=settings.seed,
            )
            typer.echo(path)


app.command()(serving.serve_rewards)
app.command()(scoring.evaluate)
app.command()(scoring.evaluate_upscaler)
app.command()(scoring.rollout)


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    upscaler: Annotated[
        Path | None, typer.Option(help="Upscaler checkpoint: also show predicted frames enlarged by it.")
    ] = None,
) -> None:
    """Write RUN/report.html again and print its table."""
    from genie_ray.report import print_table, write_report

    if upscaler is not None:
        from genie_ray.upscaling import upscale_run

        upscale_run(directory, upscaler)
    path = write_report(directory)
    print_table(directory)
    typer.echo(f"report: {path}")
