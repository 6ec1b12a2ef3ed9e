"""`genie-ray study`: what people say about a world model's clips. Thin: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from genie_ray.commands.options import Data, DiskOutput, labelled_models

study_app = typer.Typer(no_args_is_help=True, help="Let people judge a world model's clips in the browser.")

Study = Annotated[Path, typer.Argument(metavar="STUDY", help="Directory that `study make` wrote.")]


@study_app.command("make")
def make(
    kind: Annotated[
        Literal["quality", "action"],
        typer.Argument(help="quality: how alike are prediction and game? action: which clip shows the named action?"),
    ],
    output: DiskOutput,
    data: Data,
    model: Annotated[list[str], typer.Option(help="LABEL=CHECKPOINT of a world model, repeatable.")],
    game: Annotated[list[str] | None, typer.Option(help="Game of the episodes, repeatable; default: all.")] = None,
    action: Annotated[
        list[str] | None, typer.Option(help="Action that the action study names, repeatable; default: all but NOOP.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Pairs of clips that a rater judges.")] = 120,
    truth: Annotated[int, typer.Option(help="Of them, pairs of the game itself, which set the scale.")] = 20,
    frames: Annotated[int, typer.Option(help="Frames to predict, after two given ones.")] = 10,
    stride: Annotated[
        int, typer.Option(help="Frames between the starts of neighbouring windows; 0: as many as are predicted.")
    ] = 0,
    decoding_steps: Annotated[int, typer.Option(help="Decoding steps per frame; the paper uses 25.")] = 4,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0: always the likeliest tokens.")] = 0.0,
    fps: Annotated[float, typer.Option(help="Frames a second of the clips in the page.")] = 6.0,
    seed: Annotated[int, typer.Option(help="Seed of sides, order, named actions and sampled tokens.")] = 0,
) -> None:
    """Make a user study: OUT/kit, static files to open in a browser, and OUT/key.json, which tells what they show."""
    from genie_ray.studies import kit
    from genie_ray.studies.config import StudyConfig

    config = StudyConfig(
        samples=samples,
        truth=truth,
        games=tuple(game or ()),
        actions=tuple(action or ()),
        frames=frames,
        stride=stride,
        decoding_steps=decoding_steps,
        temperature=temperature,
        fps=fps,
        seed=seed,
    )
    kit.make(output, kind, labelled_models(model), data, config)
    typer.echo(output / kit.KIT / kit.PAGE)


@study_app.command("serve")
def serve(study: Study, port: Annotated[int, typer.Option(min=1, max=65_535)] = 8421) -> None:
    """Serve a study on this machine, and keep answers in STUDY/answers."""
    from genie_ray.studies.serving import serve

    serve(study, port, typer.echo)


@study_app.command("results")
def results(
    study: Study,
    answers: Annotated[
        list[Path] | None, typer.Argument(help="CSV files from the page; default: those in STUDY/answers.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False,
) -> None:
    """Means with intervals, preferences between models, and the raters' agreement."""
    import json

    from genie_ray.studies.results import print_results
    from genie_ray.studies.results import results as found

    document = found(study, answers or ())
    if as_json:
        typer.echo(json.dumps(document, indent=1))
    else:
        print_results(document)
