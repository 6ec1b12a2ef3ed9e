"""`genie-ray`: the loop and its stages, one command each. Thin: parse, call, print."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from genie_ray.base.errors import IncompleteError, one_line
from genie_ray.commands import scoring, serving, sweeping
from genie_ray.commands.checkpoints import checkpoint_app
from genie_ray.commands.data import data_app
from genie_ray.commands.games import games_app
from genie_ray.commands.options import Address, ConfigFile, Games, Output, Overrides, Seed, choose_games, load_settings
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
app.add_typer(data_app, name="data")
app.add_typer(games_app, name="games")
app.add_typer(roms_app, name="roms")
app.add_typer(train_app, name="train")

# When Serve is shut down, Ray reports its controller's unanswered calls as failures, which asks nothing of anybody.
# Read when Ray is imported, so set before that.
QUIET_RAY = {"RAY_DEDUP_LOGS_SKIP_REGEX": r"Task ServeController\."}

INTERRUPTED = 130  # the exit code of what SIGINT ended


def main() -> None:
    """Runs the command line; what the user can mend is told in one line, with exit code 2 (1: all but some games)."""
    for name, value in QUIET_RAY.items():
        os.environ.setdefault(name, value)
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer's, silently
            print("interrupted: the same command continues from what is saved", file=sys.stderr)
        raise
    except (ValueError, OSError, IncompleteError) as error:
        if os.environ.get("GENIE_RAY_TRACEBACK"):
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(1 if isinstance(error, IncompleteError) else 2)


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
    from genie_ray.report.page import print_table

    directory = out or Path("runs") / config.stem
    path = run_loop(settings, directory)
    print_table(directory)
    typer.echo(f"report: {path}")


@app.command()
def collect(
    output: Output,
    steps: Annotated[int | None, typer.Option(min=1, help="Environment steps per game.", show_default=False)] = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="Or episodes per game.", show_default=False)] = None,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps that end an episode (env.max_episode_steps).", show_default=False)
    ] = None,
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
    """Play games and store every step as a replay dataset. Settings: collection.*, env.*."""
    if (steps is None) == (episodes is None):
        raise ValueError("say how much to play of each game: either --steps or --episodes")
    limit = [] if max_steps is None else [f"env.max_episode_steps={max_steps}"]
    settings = load_settings(config, [*(overrides or []), *limit], address)
    games = choose_games(settings, game)
    from genie_ray.base.session import ray_session
    from genie_ray.collecting import collection

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
            steps or episodes or 0,
            settings.collection,
            settings.env,
            unit="steps" if steps else "episodes",
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
    from genie_ray.base.session import ray_session
    from genie_ray.exploring import exploration, explorers
    from genie_ray.games.actions import action_names
    from genie_ray.rewards.service import find_service

    if (world_model is None) == (reward_service is None):
        raise ValueError("who gives the rewards? Name one of --world-model and --reward-service")
    if reward_service is not None and (own := [each for each in overrides or [] if each.startswith("reward.")]):
        raise ValueError(f"{own[0]}: a service that runs has its own settings; give them to `genie-ray serve-rewards`")
    games = choose_games(settings, game)
    with ray_session(settings.ray):
        if world_model is not None:
            for path in explorers.train_explorers(output, games, world_model, settings):
                typer.echo(path)
            return
        assert reward_service is not None
        explorers.check_room(settings, replicas=0)
        names = action_names(settings.env.action_set)
        ask = settings.exploration.learning.old_rewards == "ask"
        rewards = find_service(reward_service, frame_size=settings.env.frame_size, action_names=names, asked_again=ask)
        for name, played in settings.exploration.agents(games).items():
            path = exploration.explore(
                output / name,
                played,
                rewards,
                settings.exploration,
                settings.env,
                ray=settings.ray,
                seed=settings.seed,
            )
            typer.echo(path)


app.command()(serving.serve_rewards)
app.command()(sweeping.sweep)
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
    from genie_ray.report.page import print_table, write_report

    if upscaler is not None:
        from genie_ray.evaluating.upscaling import upscale_run

        upscale_run(directory, upscaler)
    path = write_report(directory)
    print_table(directory)
    typer.echo(f"report: {path}")
