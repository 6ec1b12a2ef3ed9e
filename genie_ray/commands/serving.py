"""`genie-ray serve-rewards`, `play` and `browse`: what listens until it is interrupted. Thin: parse, call, print."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from genie_ray.commands.options import Address, ConfigFile, Overrides, load_settings, on_a_disk


def serve_rewards(
    world_model: Annotated[Path, typer.Option(help="World model checkpoint that the rewards come from.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but loopback needs a token in GENIE_RAY_REWARDS_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    max_request_mb: Annotated[int, typer.Option(help="Largest request accepted, in MB.")] = 64,
    state: Annotated[
        Path | None,
        typer.Option(help="Directory for what a reward remembers, so that it survives a restart.", callback=on_a_disk),
    ] = None,
    config: ConfigFile = None,
    address: Address = None,
    overrides: Overrides = None,
) -> None:
    """Serve rewards over HTTP, and to explorers on the same cluster, until Ctrl-C. Settings: reward.*."""
    settings = load_settings(config, overrides, address)
    import threading
    from contextlib import suppress

    from genie_ray.base.session import ray_session
    from genie_ray.rewards.client import APP_NAME
    from genie_ray.rewards.http.api import TOKEN_VARIABLE, HttpConfig
    from genie_ray.rewards.http.serving import http_service

    http = HttpConfig(host=host, port=port, max_request_mb=max_request_mb, token=os.environ.get(TOKEN_VARIABLE))
    with ray_session(settings.ray), http_service(world_model, settings.reward, http, state=state) as url:
        header = "" if http.token is None else f' -H "Authorization: Bearer ${TOKEN_VARIABLE}"'
        typer.echo(f"rewards ({settings.reward.kind}): {url}  (Ctrl-C stops)")
        typer.echo(f"API and format: {url}/docs")
        typer.echo(f"try: curl{header} {url}/v1/service")
        typer.echo(f"     curl{header} --data-binary @fragments.npz {url}/v1/rewards -o rewards.npz")
        if cluster := settings.ray.address or os.environ.get("RAY_ADDRESS"):
            typer.echo(f"     genie-ray explore OUT --reward-service {APP_NAME} --address {cluster}")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    typer.echo("stopped")


def play(
    world_model: Annotated[
        Path | None,
        typer.Argument(metavar="CHECKPOINT", help="A GenieRedux-G; default: one of --game that comes along."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="DIR", help="Replay dataset that play starts from."),
    ] = None,
    game: Annotated[
        str | None,
        typer.Option(
            help="Game of the episodes to start from; default: any. Without CHECKPOINT: CoinRun or Hero-Atari2600."
        ),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Directory of trained agents (<directory>/<game>/module) that can take over.")
    ] = None,
    record: Annotated[
        str | None,
        typer.Option(metavar="OUT", help="Replay dataset to record the game's frames to, new or recorded before."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; not loopback: with a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8420,
) -> None:
    """Play in a world model in the browser, beside the game itself under the same buttons."""
    from contextlib import nullcontext

    from genie_ray.web.serving import serve
    from genie_ray.web.shipped import shipped

    if (world_model is None) != (data is None):
        raise ValueError("give CHECKPOINT and --data both, or neither: a model starts from frames of its own games")
    given = shipped(game) if world_model is None or data is None else nullcontext((world_model, data))
    with given as (model, place):
        serve(model, place, game, policy=policy, record=record, host=host, port=port, tell=typer.echo)


def browse(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Replay dataset (directory or URI), or a run's directory.")
    ],
    other: Annotated[
        str | None, typer.Argument(metavar="DATA2", help="Another one beside it.", show_default=False)
    ] = None,
    world_model: Annotated[
        Path | None,
        typer.Option(help="A GenieRedux-G: shows what it is unsure of, and lets you play on from any frame."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; not loopback: with a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8421,
) -> None:
    """Look at replay datasets in the browser: episodes, actions, rewards, coverage; two of them side by side.

    Of a run: random play beside explored play, with its world model, and its report.
    """
    from genie_ray.web.serving import browse as serve

    serve(data, other, world_model, host=host, port=port, tell=typer.echo)
