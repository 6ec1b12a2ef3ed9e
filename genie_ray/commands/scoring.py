"""Commands that show what a model predicts: `evaluate`, `evaluate-upscaler`, `rollout`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from genie_ray.commands.options import (
    Address,
    ConfigFile,
    Data,
    DiskOutput,
    Output,
    Overrides,
    labelled_models,
    load_settings,
)


def evaluate(
    output: Output,
    data: Data,
    model: Annotated[list[str], typer.Option(help="LABEL=CHECKPOINT of a world model, repeatable.")],
    train_data: Annotated[
        list[str] | None,
        typer.Option(help="Dataset that a model was trained on, repeatable: what it has of the test set is reported."),
    ] = None,
    config: ConfigFile = None,
    address: Address = None,
    overrides: Overrides = None,
) -> None:
    """Score world models on a test dataset: PSNR, SSIM, FID, ΔPSNR over the horizon. Settings: evaluation.*."""
    settings = load_settings(config, overrides, address)
    from genie_ray.base.files import told_if_full
    from genie_ray.base.session import ray_session
    from genie_ray.evaluating import evaluation
    from genie_ray.report.scores import print_scores
    from genie_ray.storage.paths import resolve

    models, place = labelled_models(model), resolve(output)
    with told_if_full(place), ray_session(settings.ray):
        document = evaluation.evaluate(
            models, data, place, settings.evaluation, settings.ray, train_data=train_data or ()
        )
    print_scores(document)


def evaluate_upscaler(
    output: Output,
    data: Data,
    upscaler: Annotated[str, typer.Option(help="Upscaler checkpoint.")],
    split: Annotated[
        Literal["validation", "all"],
        typer.Option(help="The episodes held out from training on this dataset, or all of a test dataset."),
    ] = "validation",
    config: ConfigFile = None,
    address: Address = None,
    overrides: Overrides = None,
) -> None:
    """Measure an upscaler against bicubic interpolation: MSE and PSNR. Settings: evaluation.*."""
    settings = load_settings(config, overrides, address)
    from genie_ray.base.files import told_if_full
    from genie_ray.base.session import ray_session
    from genie_ray.evaluating import upscaling
    from genie_ray.report.upscaling import print_upscaling
    from genie_ray.storage.paths import resolve

    place = resolve(output)
    with told_if_full(place), ray_session(settings.ray):
        document = upscaling.evaluate_upscaler(
            resolve(upscaler), data, place, settings.evaluation, settings.ray, split=split
        )
    print_upscaling(document)


def rollout(
    output: DiskOutput,
    world_model: Annotated[str, typer.Option(help="World model checkpoint to play in.")],
    data: Data,
    upscaler: Annotated[str | None, typer.Option(help="Upscaler checkpoint that enlarges the pictures.")] = None,
    game: Annotated[str | None, typer.Option(help="Game of the episode; default: any.")] = None,
    episode: Annotated[
        str | None, typer.Option(help="Id of the recorded episode; default: the first that is long enough.")
    ] = None,
    start: Annotated[int, typer.Option(help="Step of the episode to start at.")] = 0,
    prime_frames: Annotated[int, typer.Option(help="Frames given to the model.")] = 2,
    steps: Annotated[int, typer.Option(help="Frames to predict.")] = 40,
    actions: Annotated[
        str,
        typer.Option(metavar="recorded|random|NAME,NAME...", help="Actions to take; named ones are repeated in turn."),
    ] = "recorded",
    decoding_steps: Annotated[int, typer.Option(help="Decoding steps per frame; the paper uses 25.")] = 4,
    temperature: Annotated[float, typer.Option(help="Sampling temperature; 0: always the likeliest tokens.")] = 0.0,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], typer.Option(help="Number format; auto: bf16 where the device multiplies it.")
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of random actions and sampled tokens.")] = 0,
) -> None:
    """Play in a world model from a recorded episode's first frames: clip, film strip, uncertainty, PSNR, frames/s."""
    import dataclasses

    from genie_ray.base.files import told_if_full
    from genie_ray.evaluating import rollouts

    config = rollouts.RolloutConfig(
        game=game,
        episode=episode,
        start=start,
        prime_frames=prime_frames,
        steps=steps,
        actions=actions,
        decoding=dataclasses.replace(rollouts.INTERACTIVE, steps=decoding_steps, temperature=temperature),
        precision=precision,
        seed=seed,
    )
    with told_if_full(output):
        rollouts.print_rollout(rollouts.play(output, world_model, data, config, upscaler=upscaler))
    typer.echo(output)
