"""The page to browse datasets on: what it asks for by HTTP, and, with a world model, play from any of their frames."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from genie_ray.base.errors import one_line
from genie_ray.web.browsing.data import BrowsedDataset, Unsure
from genie_ray.web.pages import page, token_check

Count = Annotated[int, Query(ge=0)]
KEEP = {"Cache-Control": "private, max-age=3600"}  # pictures; their addresses name the dataset's version


def make_app(
    browsed: Sequence[BrowsedDataset],
    *,
    unsure: Unsure | None,
    plays: Sequence[FastAPI],
    report: Path | None = None,
    token: str | None,
) -> FastAPI:
    """The web application.

    Args:
        browsed: what it shows, side by side.
        unsure: what computes uncertainty; None: no world model is given.
        plays: an application to play on for each dataset, or none; they need the same token.
        report: of the run that the datasets belong to, a page of its own.
        token: needed by everything, if given.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for play in plays:
            play.state.players.close()

    app = FastAPI(title="GenieRay", lifespan=lifespan)
    asked = [Depends(token_check(token))]

    @app.exception_handler(ValueError)
    @app.exception_handler(OSError)
    def tell_error(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": one_line(error)}, 400 if isinstance(error, ValueError) else 500)

    def chosen(data: Count) -> BrowsedDataset:
        if data >= len(browsed):
            raise ValueError(f"data is {data}; allowed: 0 to {len(browsed) - 1}")
        return browsed[data]

    Chosen = Annotated[BrowsedDataset, Depends(chosen)]

    @app.get("/", response_class=HTMLResponse, dependencies=asked)
    def show_page() -> str:
        return page("browse.html")

    @app.get("/about", dependencies=asked)
    def tell() -> dict[str, Any]:
        return {
            "datasets": [each.about() for each in browsed],
            "unsure": unsure is not None,
            "play": bool(plays),
            "report": report is not None,
        }

    @app.get("/report", response_class=HTMLResponse, dependencies=asked)
    def show_report() -> str:
        if report is None:
            raise HTTPException(404, "no run is given: genie-ray browse RUN")
        return report.read_text()

    @app.get("/episodes", dependencies=asked)
    def list_episodes(of: Chosen, game: str, policy: str = "", first: Count = 0, count: Count = 20) -> dict[str, Any]:
        return of.page_of(game, policy, first, count)

    @app.get("/episode", dependencies=asked)
    def tell_episode(of: Chosen, id: str) -> dict[str, Any]:
        return of.episode(id)

    @app.get("/frames.png", dependencies=asked)
    def show_frames(of: Chosen, id: str, first: Count, last: Count, count: Count) -> Response:
        return Response(of.picture(id, first, last, count), media_type="image/png", headers=KEEP)

    @app.get("/coverage", dependencies=asked)
    def tell_coverage(of: Chosen, game: str) -> dict[str, Any]:
        return of.coverage(game)

    @app.get("/unsure", dependencies=asked)
    def tell_unsure(of: Chosen, id: str, first: Count = 0, count: Count = 32) -> dict[str, Any]:
        if unsure is None:
            raise ValueError("no world model is given: genie-ray browse DATA --world-model CHECKPOINT")
        return unsure.along(of, id, first, count)

    for number, play in enumerate(plays):
        app.mount(f"/play/{number}", play)
    return app
