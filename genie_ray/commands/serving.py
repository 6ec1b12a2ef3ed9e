"""`genie-ray serve-rewards`: the reward service for any client, until interrupted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from genie_ray.commands.options import Address, ConfigFile, Overrides, load_settings


def serve_rewards(
    world_model: Annotated[Path, typer.Option(help="World model checkpoint that the rewards come from.")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but loopback needs a token in GENIE_RAY_REWARDS_TOKEN.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    max_request_mb: Annotated[int, typer.Option(help="Largest request accepted, in MB.")] = 64,
    state: Annotated[
        Path | None, typer.Option(help="Directory for what a reward remembers, so that it survives a restart.")
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
