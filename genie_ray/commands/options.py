"""Options that several commands share, and the settings built from them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from genie_ray.config import RunConfig
    from genie_ray.exploring.config import ExplorersConfig
    from genie_ray.storage.paths import StoredPath

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, e.g. dynamics.blocks=4.")
]
ConfigFile = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        "-c",
        help="YAML preset, repeatable: in what they share, the later one counts. Default: the built-in settings.",
        show_default=False,
    ),
]
Address = Annotated[
    str | None, typer.Option(help="Ray cluster to run on (or RAY_ADDRESS); default: a local Ray is started.")
]
Output = Annotated[
    str, typer.Argument(metavar="OUT", help="Output directory, or a URI on an object store, as in s3://bucket/run.")
]


def on_a_disk(path: Path | None) -> Path | None:
    """Refuses a URI where only a directory will do; `Path` has made one slash of two."""
    if path is not None and re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        uri = str(path).replace(":/", "://", 1)
        raise ValueError(f"{uri} is not on a disk: this command writes to a directory only")
    return path


DiskOutput = Annotated[Path, typer.Argument(metavar="OUT", help="Output directory.", callback=on_a_disk)]
Data = Annotated[str, typer.Option("--data", metavar="DIR", help="Replay dataset: a directory or URI.")]
Games = Annotated[
    list[str] | None,
    typer.Option(
        "--game",
        help="Game id, query (genre=platformer,JUMP=jump) or selection (default, platformers-200, aligned-50), "
        "repeatable; if omitted, the config's games.",
    ),
]
Integrations = Annotated[
    list[Path] | None,
    typer.Option("--integrations", help="Directory of your own games (Stable-Retro integrations); repeatable."),
]
TokenizerOption = Annotated[
    str | None, typer.Option("--tokenizer", help="Tokenizer checkpoint; without --init, trains from scratch.")
]
Init = Annotated[str | None, typer.Option(help="World model checkpoint to fine-tune.")]
Seed = Annotated[int | None, typer.Option(help="Random seed; default: the config's.", show_default=False)]


def load_settings(config: Path | list[Path] | None, overrides: list[str] | None, address: str | None) -> RunConfig:
    """The presets with the command line's overrides."""
    from genie_ray.config import load_config
    from genie_ray.games.roms import add_integrations

    more = [*(overrides or []), *([f"ray.address={address}"] if address else [])]
    settings = load_config(config, more)
    add_integrations(settings.env.integrations)
    return settings


def given_names(section: str, config: list[Path] | None, overrides: list[str] | None) -> tuple[str, ...]:
    """The settings of a section that the presets or the command line give, right after `load_settings`.

    The others have defaults, which nobody asked for.
    """
    from genie_ray.base.settings import load_values

    return tuple(load_values(config, overrides or []).get(section, {}))


def choose_games(settings: ExplorersConfig, names: list[str] | None = None) -> tuple[str, ...]:
    """The named games, or else the config's, by their full ids; prints which games of a selection are left out.

    Raises:
        ValueError: see `Catalog.choose`; no game of a selection has its ROM here.
    """
    from genie_ray.games.catalog import Catalog
    from genie_ray.games.roms import HOW_TO_IMPORT

    choice = Catalog(settings.catalog).choose(names or settings.games)
    if choice.missing:
        missing = f"no ROM for {', '.join(choice.missing)}"
        if not choice.installed:
            raise ValueError(f"{missing}: {HOW_TO_IMPORT}")
        typer.echo(f"left out: {missing}", err=True)
    return choice.installed


def labelled_models(entries: list[str]) -> dict[str, StoredPath]:
    """Label → checkpoint of `--model LABEL=CHECKPOINT`.

    Raises:
        ValueError: an entry without a label, or a label given twice.
    """
    from genie_ray.storage.paths import resolve

    models: dict[str, StoredPath] = {}
    for entry in entries:
        label, separator, path = entry.partition("=")
        if not separator or not label:
            raise ValueError(f"--model {entry!r}: expected LABEL=CHECKPOINT")
        if label in models:
            raise ValueError(f"--model {entry!r}: the label {label} is given twice")
        models[label] = resolve(path)
    return models
