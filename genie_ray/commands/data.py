"""`genie-ray data`: inspect, verify, show and convert replay datasets. Thin: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from genie_ray.commands.options import DiskOutput

data_app = typer.Typer(no_args_is_help=True, help="Inspect, verify, show and convert replay datasets.")

Dataset = Annotated[
    str, typer.Argument(metavar="DATA", help="Replay dataset: a directory, or a URI (s3://, gs://, hdfs://, file://).")
]


@data_app.command("info")
def info(
    data: Dataset,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")] = False,
) -> None:
    """Summarise a dataset: counts, lengths, actions, rewards and sizes by game and policy."""
    import json

    from genie_ray.replay.dataset import ReplayDataset
    from genie_ray.replay.summary import print_summary, summarize

    document = summarize(ReplayDataset(data))
    if as_json:
        typer.echo(json.dumps(document, indent=1))
    else:
        print_summary(document)


@data_app.command("verify")
def verify(data: Dataset) -> None:
    """Decode every file and list those that are damaged, truncated, lost or foreign; exit code 1 if there are any."""
    from genie_ray.replay.verify import verify as find_problems

    problems = find_problems(data)
    for problem in problems:
        typer.echo(problem)
    if problems:
        typer.echo(f"{len(problems)} problems in {len({problem.path for problem in problems})} files", err=True)
        raise typer.Exit(1)
    typer.echo(f"{data} is whole")


@data_app.command("show")
def show(
    data: Dataset,
    output: DiskOutput,
    game: Annotated[str | None, typer.Option(help="Only episodes of this game.")] = None,
    policy: Annotated[str | None, typer.Option(help="Only episodes played by this policy.")] = None,
    episode: Annotated[str | None, typer.Option(help="The episode with this id.")] = None,
    count: Annotated[int, typer.Option(help="How many episodes, spread evenly over those that match.")] = 1,
    every: Annotated[int, typer.Option(help="Steps between shown frames.")] = 4,
) -> None:
    """Draw episodes: a film strip (PNG) and a clip (GIF) each, with actions and rewards."""
    from genie_ray.replay.dataset import ReplayDataset
    from genie_ray.replay.film import choose_episodes, show_episodes

    dataset = ReplayDataset(data)
    chosen = choose_episodes(dataset, game=game, policy=policy, episode=episode, count=count)
    for path in show_episodes(dataset, chosen, output, every=every):
        typer.echo(path)


@data_app.command("convert")
def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Replay dataset to export, or recordings to import.")],
    output: DiskOutput,
    to: Annotated[
        Literal["jpg", "png", "mp4", "lerobot"],
        typer.Option(
            help="Export: GenieRedux's layout with frames as jpg, as published (lossy), png or mp4 (lossless); or "
            "LeRobot's format v3.0 (lossless)."
        ),
    ] = "jpg",
    game: Annotated[str | None, typer.Option(help="Game of an import; default: as named in the files.")] = None,
    policy: Annotated[str, typer.Option(help="Policy that played an import; part of its episode ids.")] = "imported",
    actions: Annotated[
        str | None, typer.Option(metavar="NAME,NAME...", help="Action names of an import, if the files have none.")
    ] = None,
    frame_size: Annotated[
        int | None, typer.Option(min=1, help="Resize an import's frames to this many pixels, padded to a square.")
    ] = None,
) -> None:
    """Export a dataset in GenieRedux's published layout (a folder per session: frames and actions.json) or LeRobot's \
format, or import.

    Imports the published layout, and plain clips: videos (mp4, gif, ...) with a list of actions in a .json of the same
    name, or .npz files with both.
    """
    from genie_ray.base.files import told_if_full
    from genie_ray.replay.dataset import ReplayDataset
    from genie_ray.replay.exchange import convert, lerobot
    from genie_ray.replay.exchange.recordings import ImportConfig
    from genie_ray.replay.metadata import METADATA_FILE
    from genie_ray.storage.paths import resolve

    with told_if_full(output):
        if (resolve(source) / METADATA_FILE).is_file():
            if to == "lerobot":
                typer.echo(lerobot.export_lerobot(ReplayDataset(source), output))
                return
            if to == "jpg":
                typer.echo("JPEG is lossy: --to png and --to mp4 keep every pixel", err=True)
            for path in convert.export_published(ReplayDataset(source), output, to):
                typer.echo(path)
        else:
            names = tuple(actions.split(",")) if actions else ()
            config = ImportConfig(game=game, policy=policy, action_names=names, frame_size=frame_size)
            typer.echo(convert.import_recordings(Path(source), output, config))
