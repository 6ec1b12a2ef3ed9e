"""`genie-ray`: the loop and its stages, one command each. Thin: parse, call, print."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from genie_ray.config import RunConfig

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="World models that learn games by exploring them. `genie-ray run` is the whole loop; the other commands are "
    "its stages, each of which takes artefacts and leaves one. Run again what was cut off: it continues.",
)
roms_app = typer.Typer(no_args_is_help=True, help="Game ROMs: import and list them.")
train_app = typer.Typer(no_args_is_help=True, help="Train a part of the world model on a replay dataset.")
app.add_typer(roms_app, name="roms")
app.add_typer(train_app, name="train")

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, e.g. dynamics.blocks=4.")
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="YAML preset; without one, the paper's settings.", show_default=False),
]
Address = Annotated[
    str | None, typer.Option(help="Ray cluster to run on (or RAY_ADDRESS); without one, a local Ray is started.")
]
Output = Annotated[Path, typer.Argument(metavar="OUT", help="Directory that the artefact is left in.")]
Data = Annotated[Path, typer.Option("--data", help="Replay dataset directory.")]
Games = Annotated[
    list[str] | None, typer.Option("--game", help="Game id, repeatable; without one, the config's games.")
]
Seed = Annotated[int | None, typer.Option(help="Random seed; without one, the config's.", show_default=False)]


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
    settings = _settings(config, overrides, address)
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
    settings = _settings(config, overrides, address)
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
            game or settings.games,
            steps,
            settings.collection,
            settings.env,
            seed=settings.seed if seed is None else seed,
        )
    typer.echo(output)


@train_app.command("tokenizer")
def train_tokenizer(
    output: Output, data: Data, config: ConfigFile = None, address: Address = None, overrides: Overrides = None
) -> None:
    """Train the video tokenizer. Settings: tokenizer.*, train_tokenizer.*, ray.*."""
    settings = _settings(config, overrides, address)
    from genie_ray.session import ray_session
    from genie_ray.training import TrainingJob, train

    job = TrainingJob(
        kind="tokenizer",
        output=output,
        dataset=data,
        config=settings.train_tokenizer,
        seed=settings.seed,
        model=settings.tokenizer,
    )
    with ray_session(settings.ray):
        typer.echo(train(job, settings.ray))


@train_app.command("dynamics")
def train_dynamics(
    output: Output,
    data: Data,
    tokenizer: Annotated[Path | None, typer.Option(help="Tokenizer checkpoint: train from scratch.")] = None,
    init: Annotated[Path | None, typer.Option(help="World model checkpoint: fine-tune it.")] = None,
    config: ConfigFile = None,
    address: Address = None,
    overrides: Overrides = None,
) -> None:
    """Train the dynamics on a tokenizer's tokens (dynamics.*, train_dynamics.*), or fine-tune a model (finetune.*)."""
    settings = _settings(config, overrides, address)
    from genie_ray.session import ray_session
    from genie_ray.training import TrainingJob, train

    if (tokenizer is None) == (init is None):
        raise ValueError("give either --tokenizer (to train from scratch) or --init (to fine-tune)")
    job = TrainingJob(
        kind="dynamics",
        output=output,
        dataset=data,
        config=settings.finetune if init else settings.train_dynamics,
        seed=settings.seed,
        model=None if init else settings.dynamics,
        tokenizer=tokenizer,
        init=init,
    )
    with ray_session(settings.ray):
        typer.echo(train(job, settings.ray))


@app.command()
def explore(
    output: Output,
    world_model: Annotated[Path, typer.Option(help="World model checkpoint whose uncertainty is the reward.")],
    game: Games = None,
    config: ConfigFile = None,
    address: Address = None,
    overrides: Overrides = None,
) -> None:
    """Train explorers (OUT/<game>/module) on the world model's uncertainty. Settings: exploration.*, reward.*."""
    settings = _settings(config, overrides, address)
    from genie_ray import exploration
    from genie_ray.envs.roms import require_rom, resolve_game
    from genie_ray.reward_service import reward_service
    from genie_ray.session import ray_session

    games = [resolve_game(name) for name in game or settings.games]
    for name in games:
        require_rom(name)
    service = reward_service(
        world_model,
        settings.reward,
        frame_size=settings.env.frame_size,
        num_actions=settings.dynamics.num_actions,
    )
    with ray_session(settings.ray), service as rewards:
        for name in games:
            path = exploration.explore(
                output / name, name, rewards, settings.exploration, settings.env, seed=settings.seed
            )
            typer.echo(path)


@app.command()
def evaluate(
    output: Output,
    data: Data,
    model: Annotated[list[str], typer.Option(help="LABEL=CHECKPOINT of a world model, repeatable.")],
    config: ConfigFile = None,
    address: Address = None,
    overrides: Overrides = None,
) -> None:
    """Score world models on a test dataset: PSNR, SSIM, FID, ΔPSNR over the horizon. Settings: evaluation.*."""
    settings = _settings(config, overrides, address)
    from genie_ray import evaluation
    from genie_ray.report import print_scores
    from genie_ray.session import ray_session

    models = {}
    for entry in model:
        label, separator, path = entry.partition("=")
        if not separator:
            raise ValueError(f"--model {entry!r}: expected LABEL=CHECKPOINT")
        models[label] = Path(path)
    with ray_session(settings.ray):
        print_scores(evaluation.evaluate(models, data, output, settings.evaluation, settings.ray))


@app.command()
def report(directory: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")]) -> None:
    """Write RUN/report.html again and print its table."""
    from genie_ray.report import print_table, write_report

    path = write_report(directory)
    print_table(directory)
    typer.echo(f"report: {path}")


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


def _settings(config: Path | None, overrides: list[str] | None, address: str | None) -> RunConfig:
    from genie_ray.config import load_config

    more = [*(overrides or []), *([f"ray.address={address}"] if address else [])]
    return load_config(config, more)
