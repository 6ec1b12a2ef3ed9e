"""The page to play on, and the WebSocket behind it.

A message of the page is a JSON object with any of

    buttons    list of names held down now, the latest last
    taps       list of names pressed since the last message, even if released again: none is lost
    stamp      a number, sent back with the first frame that these buttons made
    restart    {"episode": id or null, "step": number}
    set        {"steps": …, "temperature": …, "guidance": …, "fps": …}
    waiting    true: time stands still until a button is pressed
    drive      "game", "model": a policy plays, and sees the frames of this; null, or any button: the person plays again
    record     whether the game's frames are recorded

and an answer is {"error": one line} or a frame: `step`, `model`, `game` (raw RGB, base64) or null and `without_game`,
`uncertainty` (rows) or null, `ended`, `driver`, `recorded` ({"on", "episodes", "steps", "error"}) or null, `fps`,
`stamp`, `size`. A page that loses its connection finds its play again by the session's name; an episode that is being
recorded is written when the page leaves. Nothing is served to pages of other sites, and beyond loopback only with the
token.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, HTTPException, Query, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse

from genie_ray.base.errors import one_line
from genie_ray.web.pages import is_allowed, page, token_check
from genie_ray.web.players import Player, Players

MOST_BYTES = 10_000  # of a message
FORBIDDEN = 1008  # WebSocket close code: policy


def make_app(make: Any, *, about: dict[str, Any], token: str | None) -> FastAPI:
    """The web application.

    Args:
        make: makes a `PlaySession`.
        about: what the page is told: `title`, `actions`, `episodes` (id, game and length of each).
        token: needed by everything, if given.
    """
    players = Players(make)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        players.close()

    app = FastAPI(title="GenieRay", lifespan=lifespan)
    app.state.players = players
    asked = [Depends(token_check(token))]

    @app.get("/", response_class=HTMLResponse, dependencies=asked)
    def show_page() -> str:
        return page("play.html")

    @app.get("/about", dependencies=asked)
    def tell() -> dict[str, Any]:
        return about

    @app.get("/clip.gif", dependencies=asked)
    async def clip(session: str) -> Response:
        player = players.there(session)
        if player is None:
            raise HTTPException(404, "no such session")
        async with player.lock:
            return Response(await asyncio.to_thread(player.play.clip), media_type="image/gif")

    @app.websocket("/play")
    async def play(socket: WebSocket, session: str, given: Annotated[str | None, Query(alias="token")] = None) -> None:
        origin = socket.headers.get("origin")
        await socket.accept()
        if not is_allowed(token, given) or (origin and urlsplit(origin).netloc != socket.headers.get("host")):
            await socket.close(FORBIDDEN, "no token, or a page of another site")
            return
        try:
            player = await players.named(session)
        except ValueError as error:
            await socket.send_json({"error": str(error)})
            await socket.close(FORBIDDEN)
            return
        before, player.socket = player.socket, socket
        if before is not None:
            with contextlib.suppress(RuntimeError):
                await before.close()
        ticking = None
        try:
            await _show(socket, player)
            ticking = asyncio.create_task(_tick(socket, player))
            while True:
                await _receive(socket, player, await socket.receive_text())
        except (WebSocketDisconnect, RuntimeError):
            pass
        finally:
            if player.socket is socket:
                player.socket, player.left_at, player.buttons = None, time.monotonic(), []
            if ticking is not None:
                await asyncio.wait([ticking])  # a step under way is finished
            if player.socket is None:
                async with player.lock:
                    await asyncio.to_thread(player.play.save)

    return app


async def _receive(socket: WebSocket, player: Player, text: str) -> None:
    """Does what a message asks for; answers an error in one line."""
    try:
        if len(text) > MOST_BYTES:
            raise ValueError(f"a message has {len(text)} letters; allowed: {MOST_BYTES}")
        message = json.loads(text)
        if not isinstance(message, dict):
            raise ValueError("a message is no JSON object")
        async with player.lock:
            player.take(message)
            if "restart" in message:
                where = message["restart"]
                if not isinstance(where, dict) or not isinstance(where.get("step", 0), int):
                    raise ValueError(f"restart is {where!r}; allowed: an object of episode and step")
                player.taps.clear()
                player.shown = await asyncio.to_thread(player.play.start, where.get("episode"), where.get("step", 0))
        if message.keys() & {"restart", "drive", "record"}:
            await _show(socket, player)
    except (ValueError, TypeError, RecursionError) as error:
        await socket.send_json({"error": one_line(error)})


async def _tick(socket: WebSocket, player: Player) -> None:
    """Plays on at the wished pace, or as fast as the model can."""
    last = time.monotonic()
    try:
        while player.socket is socket:
            begin = time.monotonic()
            async with player.lock:
                step, stamp = player.due(), player.stamp
                if step is not None:
                    player.shown, player.stamp = await asyncio.to_thread(step), None
            if step is not None:
                now = time.monotonic()
                player.rate = 0.8 * player.rate + 0.2 / max(now - last, 1e-3)
                last = now
                await _show(socket, player, stamp)
            await asyncio.sleep(max(0.001, 1 / player.fps - (time.monotonic() - begin)))
    except (WebSocketDisconnect, RuntimeError):  # the page is gone; `play` notices, too
        return


async def _show(socket: WebSocket, player: Player, stamp: float | None = None) -> None:
    shown = player.shown
    assert shown is not None
    recorded = player.play.recorded
    await socket.send_json(
        {
            "step": shown.step,
            "size": shown.model_HWC.shape[0],
            "model": base64.b64encode(shown.model_HWC.tobytes()).decode(),
            "game": None if shown.game_HWC is None else base64.b64encode(shown.game_HWC.tobytes()).decode(),
            "without_game": shown.without_game,
            "uncertainty": None if shown.uncertainty_hw is None else shown.uncertainty_hw.round(3).tolist(),
            "ended": shown.ended,
            "driver": player.play.driver,
            "recorded": None if recorded is None else dataclasses.asdict(recorded),
            "fps": round(player.rate, 1),
            "stamp": stamp,
        }
    )
