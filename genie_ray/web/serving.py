"""Starting the pages: loads models and datasets, checks that everything fits, and listens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from fastapi import FastAPI

from genie_ray.envs.world_model_games import episodes_of
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.storage.paths import Location
from genie_ray.web.pages import listen
from genie_ray.web.pilot import Pilots
from genie_ray.web.recording import Recorder
from genie_ray.web.server import make_app
from genie_ray.web.session import PlaySession
from world_model import checkpoint
from world_model.genie import GenieReduxG

MOST_EPISODES = 500  # in the page's list
RUN_PLAY = ("control", "explore", "random", "test")  # datasets of a run; the first two that there are are shown


def serve(
    world_model: Path,
    data: Location,
    game: str | None,
    *,
    policy: Path | None = None,
    record: str | None = None,
    host: str,
    port: int,
    tell: Callable[[str], None],
) -> None:
    """Serves the page to play on until it is interrupted.

    Args:
        world_model: checkpoint of a GenieRedux-G.
        data: replay dataset that play starts from.
        game: of its episodes; None: any.
        policy: directory of trained agents that can take over.
        record: replay dataset to record the game's frames to.
        host, port, tell: as `listen` takes them.

    Raises:
        ValueError: model, dataset, game, policy or what was recorded before do not fit, or the port is in use.
    """
    dataset = ReplayDataset(data)
    pilots = None if policy is None else Pilots(policy, dataset, (ref.game for ref in episodes_of(dataset, game)))
    recorder = None if record is None else Recorder(record, dataset)
    app = play_app(_load(world_model), dataset, game, threading.Lock(), pilots=pilots, recorder=recorder)
    listen(app, host=host, port=port, tell=tell)


def browse(
    data: str, other: str | None, world_model: Path | None, *, host: str, port: int, tell: Callable[[str], None]
) -> None:
    """Serves the page to browse datasets on until it is interrupted.

    Args:
        data, other, world_model: as `browse_app` takes them.
        host, port, tell: as `listen` takes them.

    Raises:
        ValueError: as `browse_app`, or the port is in use.
    """
    listen(browse_app(data, other, world_model), host=host, port=port, tell=tell)


def browse_app(data: str, other: str | None, world_model: Path | None) -> Callable[[str | None], FastAPI]:
    """What makes the application to browse datasets on, with a token.

    Args:
        data: replay dataset; or a run, whose play, world model and report are shown.
        other: a dataset beside it, of a run beside its last one.
        world_model: checkpoint of a GenieRedux-G, for uncertainty and for play from any frame.

    Raises:
        ValueError: a dataset is missing or damaged, or does not fit the model.
    """
    from genie_ray.web.browsing import app as browsing
    from genie_ray.web.browsing.data import BrowsedDataset, Unsure

    places, report, run = [data], None, Path(data)
    if (run / "datasets").is_dir():
        places = [str(run / "datasets" / name) for name in RUN_PLAY if (run / "datasets" / name).is_dir()][:2]
        if not places:
            raise ValueError(f"{data} is a run without play: {run / 'datasets'} has none of {', '.join(RUN_PLAY)}")
        report = run / "report.html" if (run / "report.html").is_file() else None
        if world_model is None and (run / "dynamics" / "best").is_dir():
            world_model = run / "dynamics" / "best"
    if other is not None:
        places = [places[-1], other]
    datasets = [ReplayDataset(place) for place in places]
    browsed = [BrowsedDataset(place, dataset) for place, dataset in zip(places, datasets, strict=True)]
    unsure, makers = None, list[Callable[[str | None], FastAPI]]()
    if world_model is not None:
        model, lock = _load(world_model), threading.Lock()
        unsure = Unsure(model, lock)
        makers = [play_app(model, dataset, None, lock) for dataset in datasets]

    def make(token: str | None) -> FastAPI:
        plays = [each(token) for each in makers]
        return browsing.make_app(browsed, unsure=unsure, plays=plays, report=report, token=token)

    return make


def _load(world_model: Path) -> GenieReduxG:
    import torch

    return checkpoint.load_as(GenieReduxG, world_model, "cuda" if torch.cuda.is_available() else "cpu")


def play_app(
    model: GenieReduxG,
    dataset: ReplayDataset,
    game: str | None,
    lock: threading.Lock,
    *,
    pilots: Pilots | None = None,
    recorder: Recorder | None = None,
) -> Callable[[str | None], FastAPI]:
    """What makes the application for the page to play on, with a token.

    Raises:
        ValueError: model, dataset or game do not fit.
    """

    def make() -> PlaySession:
        return PlaySession(model, dataset, game, lock, pilots=pilots, recorder=recorder)

    episodes = make().episodes  # refuses at once what does not fit
    about = {
        "title": f"GenieRay: {', '.join(sorted({ref.game for ref in episodes}))}",
        "actions": list(dataset.metadata.action_names),
        "policy": None if pilots is None else pilots.name,
        "record": None if recorder is None else str(recorder.root),
        "episodes": [
            {"id": ref.episode_id, "game": ref.game, "length": ref.length} for ref in episodes[:MOST_EPISODES]
        ],
    }
    return lambda token: make_app(make, about=about, token=token)
