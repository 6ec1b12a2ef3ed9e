"""`genie-ray train`: one command for each part of the world model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from genie_ray.commands.options import (
    Address,
    ConfigFile,
    Games,
    Init,
    Output,
    Overrides,
    Seed,
    TokenizerOption,
    choose_games,
    given_names,
    load_settings,
)

if TYPE_CHECKING:
    from genie_ray.config import RunConfig
    from genie_ray.training.job import TrainingJob
    from genie_ray.training.jobs import Data, WorldModelKind

MixedData = Annotated[
    list[str],
    typer.Option(
        "--data",
        metavar="DIR[:WEIGHT]",
        help="Replay dataset (directory or URI); repeat the option to mix several by weight: --data A --data B:2.",
    ),
]

train_app = typer.Typer(no_args_is_help=True, help="Train a part of the world model on a replay dataset.")


@train_app.command("tokenizer")
def train_tokenizer(
    output: Output,
    data: MixedData,
    init: Annotated[
        str | None, typer.Option(help="Tokenizer that is trained further, as a whole: its checkpoint, or a model's.")
    ] = None,
    config: ConfigFile = None,
    address: Address = None,
    overrides: Overrides = None,
) -> None:
    """Train the video tokenizer. Settings: tokenizer.* (without --init), train_tokenizer.*, ray.*."""
    settings = load_settings(config, overrides, address)
    from genie_ray.storage.paths import resolve
    from genie_ray.training import jobs

    further = None if init is None else resolve(init)
    _train(jobs.tokenizer(settings, _mixture(data), resolve(output), init=further), settings)


@train_app.command("decoder")
def train_decoder(
    output: Output,
    data: MixedData,
    tokenizer: Annotated[
        str, typer.Option(help="Tokenizer whose decoder is tuned: its checkpoint, or a world model's.")
    ],
    config: ConfigFile = None,
    address: Address = None,
    overrides: Overrides = None,
) -> None:
    """Tune a tokenizer's decoder to other games; its tokens do not change. Settings: tune_decoder.*."""
    settings = load_settings(config, overrides, address)
    from genie_ray.storage.paths import resolve
    from genie_ray.training import jobs

    _train(jobs.decoder(settings, _mixture(data), resolve(output), tokenizer=resolve(tokenizer)), settings)


@train_app.command("dynamics")
def train_dynamics(
    output: Output,
    data: MixedData,
    tokenizer: TokenizerOption = None,
    init: Init = None,
    config: ConfigFile = None,
    address: Address = None,
    overrides: Overrides = None,
) -> None:
    """Train the dynamics on a tokenizer's tokens (dynamics.*, train_dynamics.*), or fine-tune a model (finetune.*).

    A fine-tuning keeps the model's dynamics.*, but for those that shape no weights (masking, tdce_weight, …), if the
    preset or the command line gives them; any other that differs is refused. With --tokenizer too, that one takes the
    place of the model's own.
    """
    settings, given = load_settings(config, overrides, address), given_names("dynamics", config, overrides)
    _train_world_model("dynamics", output, data, tokenizer, init, settings, given)


@train_app.command("genie-redux")
def train_genie_redux(
    output: Output,
    data: MixedData,
    tokenizer: TokenizerOption = None,
    init: Init = None,
    config: ConfigFile = None,
    address: Address = None,
    overrides: Overrides = None,
) -> None:
    """Train dynamics together with a latent action model, which infers the actions. Settings: as for `dynamics`, \
and latent_actions.*."""
    overrides = [*(overrides or []), "dynamics.conditioning=latent"]
    settings, given = load_settings(config, overrides, address), given_names("dynamics", config, overrides)
    _train_world_model("genie_redux", output, data, tokenizer, init, settings, given)


@train_app.command("player")
def train_player(
    output: Output,
    game: Games = None,
    kind: Annotated[
        str | None,
        typer.Option(
            help="agent57, r2d2 (the same without novelty) or ppo; default: the preset's player.kind.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = None,
    config: ConfigFile = None,
    address: Address = None,
    overrides: Overrides = None,
) -> None:
    """Train test agents on a game's own reward (OUT/<game>/module), and check that they beat chance. Settings: \
player.*, env.*."""
    settings = load_settings(config, [*(overrides or []), *([f"player.kind={kind}"] if kind else [])], address)
    from genie_ray.base.files import told_if_full
    from genie_ray.base.session import ray_session
    from genie_ray.playing import depth, players
    from genie_ray.playing.agents import is_trained
    from genie_ray.storage.paths import resolve

    games, seed = choose_games(settings, game), settings.seed if seed is None else seed
    place = resolve(output)
    if not all(is_trained(place / name) for name in games):
        players.check_player(settings.player, settings.env)
    with told_if_full(place), ray_session(settings.ray):
        for name in games:
            path = place / name
            module = players.train_player(path, name, settings.player, settings.env, settings.ray, seed=seed)
            found = players.check_against_chance(path, name, settings.player, settings.env, seed=seed)
            typer.echo(f"{name}: {depth.told(found)}", err=True)
            typer.echo(module)


@train_app.command("upscaler")
def train_upscaler(
    output: Output, data: MixedData, config: ConfigFile = None, address: Address = None, overrides: Overrides = None
) -> None:
    """Train the upscaler on a dataset with large frames (collection.large_frame_every). Settings: upscaler.*, \
train_upscaler.*, ray.*."""
    settings = load_settings(config, overrides, address)
    from genie_ray.storage.paths import resolve
    from genie_ray.training import jobs

    _train(jobs.upscaler(settings, _mixture(data), resolve(output)), settings)


def _train_world_model(
    kind: WorldModelKind,
    output: str,
    data: list[str],
    tokenizer: str | None,
    init: str | None,
    settings: RunConfig,
    given: Iterable[str],
) -> None:
    """Trains from scratch on a tokenizer's tokens, or fine-tunes.

    Args:
        given: names of the dynamics' settings that the preset or the command line gives.
    """
    from genie_ray.storage.paths import resolve
    from genie_ray.training import jobs

    mixture, place = _mixture(data), resolve(output)
    if tokenizer is not None and init is None:
        job = jobs.dynamics(settings, mixture, place, tokenizer=resolve(tokenizer), kind=kind)
    elif init is not None:
        changes = {name: getattr(settings.dynamics, name) for name in given}
        job = jobs.finetuning(
            settings.finetune,
            mixture,
            place,
            init=resolve(init),
            seed=settings.seed,
            tokenizer=None if tokenizer is None else resolve(tokenizer),
            kind=kind,
            changes=changes,
        )
    else:
        raise ValueError("give either --tokenizer (to train from scratch) or --init (to fine-tune), or both")
    _train(job, settings)


def _mixture(data: list[str]) -> Data:
    from genie_ray.replay.loading.mixture import parse_data

    return tuple(map(parse_data, data))


def _train(job: TrainingJob, settings: RunConfig) -> None:
    from genie_ray.base.files import told_if_full
    from genie_ray.base.session import ray_session
    from genie_ray.training.train import train

    with told_if_full(job.output), ray_session(settings.ray):
        typer.echo(train(job, settings.ray))
