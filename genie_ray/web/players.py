"""Who plays: sessions by name, and what the page of each asks for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import WebSocket

from genie_ray.web.session import PlaySession, Shown

FPS = (1.0, 60.0)
MOST_SESSIONS = 8
MOST_TAPS = 50  # that wait
KEPT_S = 120.0  # a session without a page


class Player:
    """A session and what its page asks for."""

    def __init__(self, play: PlaySession) -> None:
        self.play, self.lock = play, asyncio.Lock()
        self.buttons: list[str] = []
        self.taps: list[str] = []
        self.fps, self.waiting, self.stamp = 10.0, False, None
        self.socket: WebSocket | None = None
        self.left_at = time.monotonic()
        self.shown: Shown | None = None
        self.rate = 0.0  # frames a second of late

    def take(self, message: dict[str, Any]) -> None:
        """Notes what a message says about buttons and pace.

        Raises:
            ValueError: something else than the protocol has.
        """
        known = {name for action in self.play.actions for name in action.split("+")}
        for key in ("buttons", "taps"):
            if key in message:
                names = message[key]
                if not isinstance(names, list) or not all(isinstance(name, str) and name in known for name in names):
                    raise ValueError(f"{key} is {names!r}; allowed: a list of {', '.join(sorted(known))}")
        if message.get("buttons") or message.get("taps"):
            self.play.drive(None)
        self.buttons = list(message.get("buttons", self.buttons))
        self.taps += message.get("taps", [])
        if len(self.taps) > MOST_TAPS:
            del self.taps[MOST_TAPS:]
            raise ValueError(f"{MOST_TAPS} pressed buttons wait already; allowed: that many")
        self.waiting = bool(message.get("waiting", self.waiting))
        if isinstance(message.get("stamp"), (int, float)):
            self.stamp = message["stamp"]
        if "set" in message:
            settings = dict(message["set"]) if isinstance(message["set"], dict) else {"set": message["set"]}
            fps = settings.pop("fps", self.fps)
            if not isinstance(fps, (int, float)) or not FPS[0] <= fps <= FPS[1]:
                raise ValueError(f"fps is {fps!r}; allowed: {FPS[0]:g} to {FPS[1]:g}")
            self.fps = float(fps)
            if settings:
                self.play.change(**settings)
        if "drive" in message:
            self.play.drive(message["drive"])
        if "record" in message:
            self.play.record(bool(message["record"]))

    def due(self) -> Callable[[], Shown] | None:
        """What takes the next step: the policy in control, or the buttons held and those tapped.

        Taps that came while the model was busy are taken in turn, as many at a time as make one action.
        """
        if self.play.driver is not None:
            return self.play.act_by_policy
        tapped = self.taps[:1]
        while (more := self.taps[: len(tapped) + 1]) != tapped and len({*more}) == len(more) and self.play.makes(more):
            tapped = more
        del self.taps[: len(tapped)]
        pressed = [*(name for name in self.buttons if name not in tapped), *tapped]
        if self.waiting and not pressed:
            return None
        action = self.play.action_of(pressed)
        return None if action is None else partial(self.play.act, action)


class Players:
    """All sessions, by name."""

    def __init__(self, make: Any) -> None:
        self._make, self._by_name = make, dict[str, Player]()

    async def named(self, name: str) -> Player:
        """A session, made if there is none of this name.

        Raises:
            ValueError: there are too many.
        """
        self._forget()
        if name not in self._by_name:
            if len(self._by_name) >= MOST_SESSIONS:
                raise ValueError(f"{MOST_SESSIONS} people play already; allowed: that many")
            self._by_name[name] = player = Player(self._make())
            player.shown = await asyncio.to_thread(player.play.start)
        return self._by_name[name]

    def there(self, name: str) -> Player | None:
        """A session that is there."""
        return self._by_name.get(name)

    def _forget(self) -> None:
        """Ends those that nobody looks at."""
        for name, player in list(self._by_name.items()):
            if player.socket is None and time.monotonic() - player.left_at > KEPT_S:
                self._by_name.pop(name).play.close()

    def close(self) -> None:
        """Ends all."""
        for player in self._by_name.values():
            player.play.close()
        self._by_name.clear()
