"""What all pages share: their style and script, the token, and listening until interrupted."""

from __future__ import annotations

import hmac
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import HTTPException, Query
from starlette.applications import Starlette
from starlette.middleware.trustedhost import TrustedHostMiddleware

from genie_ray.base.files import STYLE

PAGES = Path(__file__).parent
SHARED = (STYLE, *(PAGES / name for name in ("playing.css", "common.js", "playing.js", "player.js")))
LOOPBACK = ("127.0.0.1", "localhost", "::1")
OWN_NAMES = [*LOOPBACK, "[::1]", "["]  # IPv6 as Starlette's versions write it; "[" is no site's name


def page(name: str) -> str:
    """A page as one document: the shared style and script stand where it names them."""
    text = (PAGES / name).read_text()
    for part in SHARED:
        text = text.replace(f"/* {part.name} */", part.read_text())
    return text


def is_allowed(token: str | None, given: str | None) -> bool:
    """Whether the token that a request gives is the needed one; None: none is needed."""
    return token is None or hmac.compare_digest((given or "").encode(), token.encode())


def token_check(token: str | None) -> Callable[..., None]:
    """A dependency for every address of an application: refuses requests without the token."""

    def check(given: Annotated[str | None, Query(alias="token")] = None) -> None:
        if not is_allowed(token, given):
            raise HTTPException(403, "the address needs ?token=…, as the command printed it")

    return check


def guarded(app: Starlette, host: str) -> Starlette:
    """The application; on loopback it answers only to this machine's own names.

    Another site whose name was made to lead here (DNS rebinding) could otherwise read everything.
    """
    if host in LOOPBACK:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=OWN_NAMES)
    return app


def listen(make_app: Callable[[str | None], Starlette], *, host: str, port: int, tell: Callable[[str], Any]) -> None:
    """Serves an application until it is interrupted.

    Args:
        make_app: makes it with the token that requests need; None: none.
        host: address; on any but loopback, a token is drawn.
        port: of the page.
        tell: called with the page's address.

    Raises:
        ValueError: the port is in use, or the address not this machine's.
    """
    import uvicorn

    token = None if host in LOOPBACK else secrets.token_urlsafe(16)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ValueError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    with listening:
        tell(f"http://{host}:{port}/" + (f"?token={token}" if token else ""))
        uvicorn.Server(uvicorn.Config(guarded(make_app(token), host), log_level="warning")).run(sockets=[listening])
