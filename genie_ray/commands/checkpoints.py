"""`genie-ray checkpoint`: operations on checkpoints that need no training or data. Thin: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genie_ray.commands.options import DiskOutput, Output

checkpoint_app = typer.Typer(
    no_args_is_help=True, help="Inspect, import, share and export checkpoints; replace a tokenizer."
)

Directory = Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint directory.")]
Repo = Annotated[str, typer.Argument(metavar="REPO", help="Model repository of the Hugging Face hub: NAMESPACE/NAME.")]


@checkpoint_app.command("info")
def info(directory: Directory) -> None:
    """Print what a checkpoint holds: kind, parameters, hashes, sizes and provenance."""
    import yaml

    from world_model.checkpoint import describe

    typer.echo(yaml.safe_dump(describe(directory), sort_keys=False), nl=False)


@checkpoint_app.command("import")
def import_pt(
    output: DiskOutput,
    tokenizer: Annotated[Path, typer.Option(help="Published tokenizer (.pt).")],
    model: Annotated[
        Path | None, typer.Option(help="Published GenieRedux-G or GenieRedux (.pt); default: the tokenizer alone.")
    ] = None,
    frame_size: Annotated[
        int | None, typer.Option(min=1, help="Pixels, if not 64; a GenieRedux's file contains it.")
    ] = None,
    max_frames: Annotated[
        int | None,
        typer.Option(min=1, help="Longest clip of a tokenizer alone, if not 16; a model's file contains it."),
    ] = None,
    token_input_scale: Annotated[
        float | None,
        typer.Option(min=0, help="Scale of the token input, if not as published: 10 (GenieRedux-G), 0 (GenieRedux)."),
    ] = None,
) -> None:
    """Import a checkpoint from the released GenieRedux implementation."""
    from genie_ray.training.card import model_card
    from world_model import checkpoint
    from world_model.published import import_published

    imported = import_published(
        tokenizer, model, frame_size=frame_size, max_frames=max_frames, token_input_scale=token_input_scale
    )
    files = [path.name for path in (tokenizer, model) if path]
    provenance = {"imported_from": files}
    checkpoint.save(imported, output, provenance=provenance, card=model_card(imported, provenance))
    typer.echo(output)


@checkpoint_app.command("with-tokenizer")
def with_tokenizer(
    output: Output,
    model: Annotated[str, typer.Option(help="World model checkpoint.")],
    tokenizer: Annotated[str, typer.Option(help="Its tokenizer after `genie-ray train decoder`.")],
) -> None:
    """Give a world model its own tokenizer with a tuned decoder; a tokenizer with other tokens is refused."""
    from genie_ray.storage.paths import resolve
    from genie_ray.training.decoding import save_with_tokenizer

    save_with_tokenizer(resolve(output), resolve(model), resolve(tokenizer))
    typer.echo(output)


@checkpoint_app.command("push")
def push(
    directory: Directory,
    repo: Repo,
    private: Annotated[bool, typer.Option("--private", help="If it is made: only for you.")] = False,
) -> None:
    """Put a checkpoint on the Hugging Face hub (HF_TOKEN, HF_ENDPOINT); prints the commit."""
    from genie_ray.sharing.hub import push

    typer.echo(push(directory, repo, private=private))


@checkpoint_app.command("pull")
def pull(
    repo: Repo,
    output: DiskOutput,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; default: the latest.")] = None,
) -> None:
    """Bring a checkpoint from the Hugging Face hub into a new directory, and check every hash."""
    from genie_ray.sharing.hub import pull

    typer.echo(f"{repo} at {pull(repo, output, revision=revision)}", err=True)
    typer.echo(output)


@checkpoint_app.command("onnx")
def onnx(
    directory: Directory,
    output: DiskOutput,
    page: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Add a page to play on without Python, from frames of this replay dataset, for any static host.",
        ),
    ] = None,
    game: Annotated[str | None, typer.Option(help="Page: game of the episodes to start from; default: any.")] = None,
    starts: Annotated[int, typer.Option(min=1, help="Page: frames to choose a start from; they are published.")] = 16,
    onnxruntime: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Page: folder dist of npm's onnxruntime-web; default: npm fetches it."),
    ] = None,
) -> None:
    """Export a GenieRedux-G as ONNX graphs, each checked against PyTorch, and a player.json that puts them together."""
    if page is None:
        from genie_ray.sharing.onnx_export import export_onnx

        if game is not None or onnxruntime is not None:
            raise ValueError("--game and --onnxruntime are for the page: give --page DATA, too")
        document = export_onnx(directory, output)
    else:
        from genie_ray.web.standalone import export_page

        document = export_page(directory, output, page, game=game, starts=starts, runtime=onnxruntime)
    for name, graph in document["graphs"].items():
        typer.echo(f"{name}: {graph['apart']:.2g} from PyTorch", err=True)
    typer.echo(output)
