"""Serving a study on this machine: the kit's files, and a place that keeps answers as they are given.

Only to this machine: a study for other people is put on any server of static files, and its page lets them download
their answers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from genie_ray.base.files import write_atomically
from genie_ray.studies.answers import FOLDER, parse_answers
from genie_ray.studies.kit import KIT, read_key
from genie_ray.web.pages import listen

HOST = "127.0.0.1"
MOST_BYTES = 1_000_000  # of one rater's answers
SESSION = re.compile(r"[0-9a-z]{4,32}")


def serve(output: Path, port: int, tell: Callable[[str], None]) -> None:
    """Serves a study until it is interrupted.

    Args:
        tell: called with the page's address.

    Raises:
        ValueError: no study, or the port is in use.
    """
    app = make_app(output)
    listen(
        lambda _: app,
        host=HOST,
        port=port,
        tell=lambda address: tell(f"{address}  (Ctrl-C stops; answers: {output / FOLDER})"),
    )


def make_app(output: Path) -> Starlette:
    """The web application: `/`, the kit, and `POST /answers?session=…`, a rater's answers so far as CSV.

    Raises:
        ValueError: there is no study.
    """
    key = read_key(output)

    async def keep(request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin and urlsplit(origin).netloc != request.headers.get("host"):
            return PlainTextResponse("a page of another site", 403)
        session = request.query_params.get("session", "")
        if not SESSION.fullmatch(session):
            return PlainTextResponse(f"session must match {SESSION.pattern}", 400)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                return PlainTextResponse(f"more than {MOST_BYTES:,} bytes", 413)
        return _keep(output, key, session, body)

    files = StaticFiles(directory=output / KIT, html=True)
    return Starlette(routes=[Route("/answers", keep, methods=["POST"]), Mount("/", files)])


def _keep(output: Path, key: dict[str, Any], session: str, body: bytes) -> Response:
    """Writes what one page has answered so far over what it had before."""
    try:
        answers = parse_answers(key, body.decode())
        if len({answer.rater for answer in answers}) != 1:
            raise ValueError("answers must be of one rater")
    except ValueError as error:
        return PlainTextResponse(str(error), 400)
    (output / FOLDER).mkdir(exist_ok=True)
    write_atomically(output / FOLDER / f"{session}.csv", lambda path: path.write_bytes(body))
    return PlainTextResponse("kept")
