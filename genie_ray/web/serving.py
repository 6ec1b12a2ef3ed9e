"""Starting the page: loads the model, checks that everything fits, and listens."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.storage import Location
from genie_ray.web.server import make_app
from genie_ray.web.session import PlaySession
from world_model import checkpoint
from world_model.genie import GenieReduxG

SHIPPED = Path(__file__).parent / "coinrun"
"""A small world model that comes along, `model/`, and play of levels that it was not trained on, `play/`."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_EPISODES = 500  # in the page's list


def serve(
    world_model: Path, data: Location, game: str | None, *, host: str, port: int, tell: Callable[[str], None]
) -> None:
    """Serves the page until it is interrupted.

    Args:
        world_model: checkpoint of a GenieRedux-G.
        data: replay dataset that play starts from.
        game: of its episodes; None: any.
        host: address; on any but loopback, a token is drawn.
        port: of the page.
        tell: called with the page's address.

    Raises:
        ValueError: model, dataset or game do not fit, or the port is in use.
    """
    import torch
    import uvicorn

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, dataset = checkpoint.load_as(GenieReduxG, world_model, device), ReplayDataset(data)
    lock = threading.Lock()

    def make() -> PlaySession:
        return PlaySession(model, dataset, game, lock)

    episodes = make().episodes  # refuses at once what does not fit
    about = {
        "title": f"GenieRay: {', '.join(sorted({ref.game for ref in episodes}))}",
        "actions": list(dataset.metadata.action_names),
        "episodes": [
            {"id": ref.episode_id, "game": ref.game, "length": ref.length} for ref in episodes[:MOST_EPISODES]
        ],
    }
    token = None if host in LOOPBACK else secrets.token_urlsafe(16)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ValueError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    with listening:
        tell(f"http://{host}:{port}/" + (f"?token={token}" if token else ""))
        config = uvicorn.Config(make_app(make, about=about, token=token), log_level="warning")
        uvicorn.Server(config).run(sockets=[listening])
