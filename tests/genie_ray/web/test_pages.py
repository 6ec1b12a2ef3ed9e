"""What all pages share: who is answered."""

import socket
import urllib.error
import urllib.request

import pytest
from fastapi import FastAPI, WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from genie_ray.web.pages import LOOPBACK, guarded
from tests.genie_ray.web.live import running


@pytest.mark.parametrize("host", LOOPBACK)
def test_on_loopback_only_its_own_names_are_answered(host: str) -> None:
    app = FastAPI()

    @app.get("/")
    def tell() -> str:
        return "here"

    @app.websocket("/play")
    async def play(opened: WebSocket) -> None:
        await opened.accept()
        await opened.close()

    with running(guarded(app, host)) as server:
        for name in ("127.0.0.1", "localhost", "[::1]"):
            for rest in ("", ":8420"):
                assert ask(server, name + rest) == b'"here"'
        connect(f"ws://{server}/play").close()
        for name in ("elsewhere.example", "127.0.0.1.elsewhere.example", ""):
            with pytest.raises(urllib.error.HTTPError, match="400"):
                ask(server, name)
        address, port = server.split(":")
        with socket.create_connection((address, int(port))) as led, pytest.raises(InvalidStatus, match="HTTP 400"):
            connect("ws://elsewhere.example/play", sock=led)


def test_beyond_loopback_the_token_keeps_others_out() -> None:
    app = FastAPI()
    app.add_api_route("/", lambda: "here")
    with running(guarded(app, "0.0.0.0")) as server:
        assert ask(server, "lab.example:8420") == b'"here"'


def ask(server: str, name: str) -> bytes:
    """The first page's content, asked for under a name."""
    request = urllib.request.Request(f"http://{server}/", headers={"Host": name})
    with urllib.request.urlopen(request) as answer:
        return bytes(answer.read())
