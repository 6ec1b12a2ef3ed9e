"""Querying the reward service from any process of the cluster.

If the service restarts, is full or moves, the client retries under the same id until the caller's timeout. A fragment
gets its own rewards, or the caller gets an error.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ray import serve
from ray.exceptions import ObjectLostError, RayActorError, RaySystemError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, RayServeException

from policies.errors import last_line
from policies.rewards import RewardAnswer, RewardUnavailableError

APP_NAME = "genie-ray-rewards"
DEPLOYMENT = "RewardModel"
# How a service that restarts, moves or is gone looks to its caller. Errors inside the model are not among them.
UNAVAILABLE = (
    RewardUnavailableError, TimeoutError, RayServeException, RayActorError, RaySystemError, ObjectLostError,
    WorkerCrashedError,
)  # fmt: skip
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0  # between attempts, doubled each time


class ServeRewardFuture:
    """Rewards requested from the service (a `policies.rewards.RewardFuture`)."""

    def __init__(self, client: ServeRewardClient, request: tuple[Any, ...]) -> None:
        self._client, self._request = client, request
        self._response = client.send("rewards", *request)

    def result(self, timeout_s: float) -> list[np.ndarray]:
        """One float32 array [n] per fragment; see `answer`."""
        return self.answer(timeout_s).rewards

    def answer(self, timeout_s: float) -> RewardAnswer:
        """Waits for the answer; retries while the service is full or restarting.

        Raises:
            RewardUnavailableError: no answer in time, or no service.
            ValueError: fragments that the service cannot judge.
        """
        answer, attempts = self._client.wait(self._response, timeout_s, "rewards", *self._request)
        self._client.counts["answered"] += 1
        self._client.version = answer.version
        return replace(answer, attempts=attempts)


class ServeRewardClient:
    """Asks the service for rewards (a `policies.rewards.RewardClient`).

    `version` is that of the latest answer; `counts` has the keys requests, answered, retries, back_pressure, failed.
    """

    def __init__(self, app_name: str = APP_NAME) -> None:
        self.app_name = app_name
        self.version: str | None = None
        self.counts: Counter[str] = Counter()
        self._handle: Any = None

    def submit(
        self,
        frames: list[np.ndarray],
        actions: list[np.ndarray],
        *,
        episodes: Sequence[str] | None = None,
        maps: bool = False,
        remember: bool = True,
    ) -> ServeRewardFuture:
        """Sends one request for all these fragments."""
        self.counts["requests"] += 1
        named = None if episodes is None else list(episodes)
        return ServeRewardFuture(self, (uuid.uuid4().hex, frames, actions, named, maps, remember))

    def ask(self, method: str, *arguments: Any, timeout_s: float) -> Any:
        """Calls another, idempotent method of the service and returns its result; raises as `wait` does."""
        return self.wait(self.send(method, *arguments), timeout_s, method, *arguments)[0]

    def send(self, method: str, *arguments: Any) -> Any:
        """Serve's response to a call, or the exception that prevented it."""
        try:
            return getattr(self.handle, method).remote(*arguments)
        except UNAVAILABLE as error:
            return error

    def wait(self, response: Any, timeout_s: float, method: str, *arguments: Any) -> tuple[Any, int]:
        """The result of a call already sent, and the number of attempts it took.

        Raises:
            RewardUnavailableError: no answer in time, or no service.
            RayTaskError: the method raised; the error is also an instance of the original exception's class.
        """
        deadline = time.monotonic() + timeout_s
        for attempt in itertools.count(1):
            try:
                if isinstance(response, Exception):
                    raise response
                return response.result(timeout_s=max(0.0, deadline - time.monotonic())), attempt
            except UNAVAILABLE as error:
                self.counts["back_pressure"] += isinstance(error, BackPressureError)
                if not isinstance(error, (BackPressureError, RayActorError)):
                    self.disconnect()
                pause = min(FIRST_PAUSE_S * 2 ** min(attempt, 10), LONGEST_PAUSE_S)
                if time.monotonic() + pause >= deadline:
                    self.counts["failed"] += 1
                    raise RewardUnavailableError(f"reward service {self.app_name!r}: {last_line(error)}") from error
            time.sleep(pause)
            self.counts["retries"] += 1
            response = self.send(method, *arguments)
        raise AssertionError("unreachable")

    @property
    def handle(self) -> Any:
        """Serve's handle to the deployment. Raises one of UNAVAILABLE if there is no such service."""
        if self._handle is None:
            try:
                self._handle = serve.get_deployment_handle(DEPLOYMENT, self.app_name)
            except KeyError as error:
                raise RewardUnavailableError("there is no such service") from error
        return self._handle

    def disconnect(self) -> None:
        """Drops the connection; the next request looks the service up again."""
        self._handle = None
