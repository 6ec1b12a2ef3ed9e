"""The reward service over HTTP: for programs outside the cluster, in any language that can write .npz files (wire.py).

    POST /v1/rewards[?maps=true]   question → answer
    GET  /v1/service               what is served: kind, version, frame size, number of actions, limits
    GET  /v1/stats                 counts, throughput, latency
    GET  /docs, /openapi.json      this API, for people and for programs

Bound to loopback by default; on any other address, every request must carry a bearer token.
"""

import asyncio
import ipaddress
import secrets
import uuid
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from ray import serve
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from genie_ray import __version__
from genie_ray.base.errors import cause_of
from genie_ray.rewards.client import UNAVAILABLE
from genie_ray.rewards.http import wire
from policies.checks import check_at_least
from policies.errors import last_line

TOKEN_VARIABLE = "GENIE_RAY_REWARDS_TOKEN"
MEGABYTE = 1024**2
RETRY_AFTER_S = "1"
DESCRIPTION_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class HttpConfig:
    """Where the service listens, and what it accepts."""

    host: str = "127.0.0.1"
    port: int = 8000
    max_request_mb: int = 64  # packed or unpacked; about 5,000 frames of 64×64
    token: str | None = field(default=None, repr=False)  # requests must carry it; required unless the host is loopback

    def __post_init__(self) -> None:
        check_at_least(1, self, "port", "max_request_mb")
        if self.token is None and not is_loopback(self.host):
            raise ValueError(f"host is {self.host} and no token is set; allowed without {TOKEN_VARIABLE}: 127.0.0.1")
        if self.token is not None and len(self.token) < 16:
            raise ValueError(f"{TOKEN_VARIABLE} has {len(self.token)} characters; allowed: 16 or more")


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


api = FastAPI(title="GenieRay rewards", version=__version__, description=wire.__doc__ or "")
Token = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
NPZ = {"content": {wire.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}


@serve.ingress(api)
class RewardApi:
    """Checks and translates requests; the model answers them."""

    def __init__(self, model: DeploymentHandle, config: HttpConfig) -> None:
        self._model, self._config = model, config

    @api.post(
        "/v1/rewards",
        response_class=Response,
        openapi_extra={"requestBody": {**NPZ, "required": True}},
        responses={
            200: {**NPZ, "description": "The answer."},
            400: {"description": "Malformed, or cannot be judged."},
            401: {"description": "Missing or wrong token."},
            413: {"description": "Too large."},
            503: {"description": "Full, or restarting: retry after Retry-After seconds."},
        },
    )
    async def rewards(
        self,
        request: Request,
        token: Token,
        maps: Annotated[bool, Query(description="Also return maps over each frame's tokens.")] = False,
        remember: Annotated[
            bool, Query(description="Let a reward that learns, or counts all play, use the fragments for that.")
        ] = True,
        request_id: Annotated[
            str | None,
            Query(description="A fresh UUID. Repeating a request under the same one returns the same answer."),
        ] = None,
    ) -> Response:
        """Rewards for fragments of play."""
        self._authorize(token)
        body = await self._body(request)
        try:
            question = await asyncio.to_thread(
                wire.unpack_question, body, max_bytes=self._config.max_request_mb * MEGABYTE
            )
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        answer = await self._ask(
            "rewards",
            request_id or uuid.uuid4().hex,
            question.frames,
            question.actions,
            question.episodes,
            maps,
            remember,
        )
        return Response(await asyncio.to_thread(wire.pack_answer, answer), media_type=wire.MEDIA_TYPE)

    @api.get("/v1/service")
    async def service(self, token: Token) -> dict[str, Any]:
        """The reward, its version, and what it can judge."""
        self._authorize(token)
        described = await self._ask("describe", timeout_s=DESCRIPTION_TIMEOUT_S)
        return {**described, "max_request_mb": self._config.max_request_mb}

    @api.get("/v1/stats")
    async def stats(self, token: Token) -> dict[str, Any]:
        """Counts, recent throughput and latency of the replica that answers."""
        self._authorize(token)
        return await self._ask("stats", timeout_s=DESCRIPTION_TIMEOUT_S)

    async def _ask(self, method: str, *arguments: Any, timeout_s: float | None = None) -> Any:
        """Calls a method of the model; turns its exceptions into HTTP statuses."""
        try:
            return await asyncio.wait_for(getattr(self._model, method).remote(*arguments), timeout_s)
        except ValueError as error:
            raise HTTPException(400, str(cause_of(error))) from error
        except UNAVAILABLE as error:
            reason = "full" if isinstance(error, BackPressureError) else last_line(error)
            raise HTTPException(503, reason, {"Retry-After": RETRY_AFTER_S}) from error

    def _authorize(self, token: HTTPAuthorizationCredentials | None) -> None:
        wanted, given = self._config.token, "" if token is None else token.credentials
        if wanted is not None and not secrets.compare_digest(given.encode(), wanted.encode()):
            raise HTTPException(401, "missing or wrong token", {"WWW-Authenticate": "Bearer"})

    async def _body(self, request: Request) -> bytes:
        """The request's body, read only up to the limit."""
        limit = self._config.max_request_mb * MEGABYTE
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise HTTPException(413, f"more than {self._config.max_request_mb} MB")
            parts.append(part)
        return b"".join(parts)
