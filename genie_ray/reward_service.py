"""The world model as a judge of play: a Ray Serve deployment that turns fragments into exploration rewards.

Reward of a transition into frame t: the world model's uncertainty about that frame, given frames t−4 and t−3 and
actions t−4 … t−1 (Savov et al. 2025, eqs. 2–4; `world_model.uncertainty`). A client sends whole fragments; their
windows are cut out here, so that each frame travels once. There is no HTTP proxy: only this cluster's processes can
ask.

Weights change without a restart: enter `reward_service` again, or call `deploy`, with another checkpoint. Each answer
carries the SHA-256 of the weights that it was made with.

Axis letters: M windows, n actions of a fragment, H W C frame.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from numpy.lib.stride_tricks import sliding_window_view
from ray import serve
from ray.exceptions import ObjectLostError, RayActorError, RaySystemError, WorkerCrashedError
from ray.serve.exceptions import RayServeException

from genie_ray import __version__
from genie_ray.precision import Precision, autocast
from policies.checks import check_at_least, check_positive, check_unit_interval
from policies.rewards import WINDOW_ACTIONS, RewardUnavailableError
from world_model.checkpoint import load_as, require_kind
from world_model.genie import GenieReduxG
from world_model.uncertainty import PRIME_FRAMES, uncertainty_reward

APP_NAME = "genie-ray-rewards"
# What a service that restarts, moves or is gone looks like to its caller. Errors inside the model are not among them.
UNAVAILABLE = (
    TimeoutError, RayServeException, RayActorError, RaySystemError, ObjectLostError, WorkerCrashedError,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """How uncertainty becomes a reward, and what the service may use."""

    top_k_fraction: float = 0.25  # share of a frame's tokens that count, the least certain ones (eq. 4)
    scale: float = 1.0  # the published code multiplies by 2
    batch_size: int = 64  # windows per forward pass
    precision: Precision = "auto"
    replicas: int = 1
    cpus: float = 1.0  # of each replica
    gpus: float = 0.0  # of each replica; above 0 the model runs on the GPU
    threads: int = 1  # of PyTorch, in each replica

    def __post_init__(self) -> None:
        check_positive(self, "top_k_fraction", "scale")
        check_unit_interval(self, "top_k_fraction")
        check_at_least(1, self, "batch_size", "replicas", "threads")
        check_at_least(0, self, "cpus", "gpus")


def windows(frames: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a fragment into what the world model is asked about.

    Args:
        frames: uint8 [n + 1, H, W, C].
        actions: int64 [n]; `actions[i]` leads from `frames[i]` to `frames[i + 1]`.

    Returns:
        frames [M, 2, H, W, C] and actions [M, 4] with M = max(n − 3, 0). Window m judges the transition into
        `frames[m + 4]`: it holds frames m, m + 1 and actions m … m + 3.
    """
    count = max(len(actions) - WINDOW_ACTIONS + 1, 0)
    if not count:
        return np.empty((0, PRIME_FRAMES, *frames.shape[1:]), frames.dtype), np.empty((0, WINDOW_ACTIONS), np.int64)
    primes = np.stack([frames[offset : offset + count] for offset in range(PRIME_FRAMES)], axis=1)
    return primes, sliding_window_view(actions, WINDOW_ACTIONS).astype(np.int64)


def fragment_rewards(
    model: GenieReduxG, config: RewardConfig, frames: list[np.ndarray], actions: list[np.ndarray]
) -> list[np.ndarray]:
    """Rewards of the fragments' transitions, float32 [n] each; the first three of a fragment are NaN (no window)."""
    cut = [windows(*fragment) for fragment in zip(frames, actions, strict=True)]
    primes_M2HWC = np.concatenate([primes for primes, _ in cut])
    actions_M4 = np.concatenate([taken for _, taken in cut])
    device = next(model.parameters()).device
    judged = []
    for start in range(0, len(primes_M2HWC), config.batch_size):
        batch = slice(start, start + config.batch_size)
        with autocast(config.precision, device):
            uncertainty_MN = model.uncertainty(
                torch.from_numpy(primes_M2HWC[batch]).to(device), torch.from_numpy(actions_M4[batch]).to(device)
            )
        rewards_M = uncertainty_reward(uncertainty_MN, top_k_fraction=config.top_k_fraction, scale=config.scale)
        judged.append(rewards_M.cpu().numpy())
    values = np.concatenate(judged) if judged else np.empty(0, np.float32)
    rewards = [np.full(len(taken), np.nan, np.float32) for taken in actions]
    start = 0
    for reward, (_, taken_M4) in zip(rewards, cut, strict=True):
        reward[WINDOW_ACTIONS - 1 :] = values[start : start + len(taken_M4)]
        start += len(taken_M4)
    return rewards


class RewardModel:
    """One replica: holds the world model and answers one request at a time."""

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Called by Serve at the start and after each change of the user config."""
        config = RewardConfig(**user_config["config"])
        torch.set_num_threads(config.threads)
        model = load_as(GenieReduxG, user_config["checkpoint"], "cuda" if config.gpus else "cpu")
        self._model, self._config, self._version = model, config, user_config["version"]

    def rewards(self, frames: list[np.ndarray], actions: list[np.ndarray]) -> tuple[list[np.ndarray], str]:
        """See `fragment_rewards`; also the hash of the weights."""
        return fragment_rewards(self._model, self._config, frames, actions), self._version


class ServeRewardFuture:
    """Rewards on their way from the service (a `policies.rewards.RewardFuture`)."""

    def __init__(self, client: "ServeRewardClient", answer: Any) -> None:
        self._client = client
        self._answer = answer  # Serve's response, or the exception that prevented the request

    def result(self, timeout_s: float) -> list[np.ndarray]:
        """One float32 array [n] per fragment. Raises RewardUnavailableError: no answer in time, or no service."""
        try:
            if isinstance(self._answer, Exception):
                raise self._answer
            rewards, self._client.version = self._answer.result(timeout_s=timeout_s)
        except UNAVAILABLE as error:
            self._client.disconnect()
            raise RewardUnavailableError(f"reward service {self._client.app_name!r}: {_one_line(error)}") from error
        return rewards


class ServeRewardClient:
    """Asks the service for rewards (a `policies.rewards.RewardClient`), from any process of the cluster.

    `version` is the weights' hash of the latest answer.
    """

    def __init__(self, app_name: str = APP_NAME) -> None:
        self.app_name = app_name
        self.version: str | None = None
        self._handle: Any = None

    def submit(self, frames: list[np.ndarray], actions: list[np.ndarray]) -> ServeRewardFuture:
        """Sends one request for all these fragments."""
        try:
            if self._handle is None:
                self._handle = serve.get_app_handle(self.app_name)
            return ServeRewardFuture(self, self._handle.rewards.remote(frames, actions))
        except UNAVAILABLE as error:
            return ServeRewardFuture(self, error)

    def disconnect(self) -> None:
        """Forgets the connection; the next request looks the service up anew."""
        self._handle = None


def check_checkpoint(checkpoint: str | Path, *, frame_size: int, num_actions: int) -> str:
    """Refuses, before anything starts, a checkpoint that cannot judge these environments; returns its weights' hash.

    Raises:
        ValueError: not a GenieRedux-G checkpoint, or made for other frames or actions.
    """
    description = require_kind(GenieReduxG, checkpoint)
    config = description["config"]
    for name, made_for, wanted in (
        ("frame size", config["tokenizer"]["frame_size"], frame_size),
        ("number of actions", config["dynamics"]["num_actions"], num_actions),
    ):
        if made_for != wanted:
            raise ValueError(f"checkpoint {checkpoint} has {name} {made_for}; the environments have {wanted}")
    return description["weights_sha256"]


def deploy(checkpoint: str | Path, config: RewardConfig, *, version: str, app_name: str = APP_NAME) -> None:
    """Starts the service, or gives a running one another checkpoint and config (its replicas stay as they are).

    Raises:
        RuntimeError: the replicas do not come up.
    """
    user_config = {
        "checkpoint": str(Path(checkpoint).absolute()), "version": version, "config": dataclasses.asdict(config)
    }  # fmt: skip
    app = (
        serve.deployment(RewardModel)
        .options(
            num_replicas=config.replicas,
            ray_actor_options={"num_cpus": config.cpus, "num_gpus": config.gpus},
            user_config=user_config,
            # Without a version, which counts as internal, Serve takes each run for new code and replaces replicas.
            version=__version__,
            _internal=True,
        )
        .bind()
    )
    logging_config = {"log_level": "WARNING", "enable_access_log": False}
    serve.start(proxy_location="Disabled", logging_config=logging_config)
    try:
        serve.run(app, name=app_name, route_prefix=None, logging_config=logging_config)
    except RuntimeError as error:
        raise RuntimeError(f"reward service {app_name!r} does not start: {_one_line(error)}") from error


@contextmanager
def reward_service(
    checkpoint: str | Path,
    config: RewardConfig,
    *,
    frame_size: int,
    num_actions: int,
    app_name: str = APP_NAME,
) -> Iterator[Callable[[], ServeRewardClient]]:
    """Runs the service for a `with` block on the Ray cluster that this process is connected to.

    A service of that name that runs already is given this checkpoint and config, and is left running at the end.

    Args:
        checkpoint: a GenieRedux-G checkpoint, readable on every node that may hold a replica.
        config: reward and resources.
        frame_size: height and width of the environments' frames.
        num_actions: number of the environments' actions.

    Yields:
        a picklable factory of clients.

    Raises:
        ValueError: the checkpoint does not fit, or the cluster lacks what the replicas need.
        RuntimeError: the replicas do not come up.
    """
    version = check_checkpoint(checkpoint, frame_size=frame_size, num_actions=num_actions)
    if not ray.is_initialized():
        raise RuntimeError("no Ray: connect to a cluster before starting the reward service")
    for resource, wanted in (("CPU", config.cpus * config.replicas), ("GPU", config.gpus * config.replicas)):
        there = ray.cluster_resources().get(resource, 0)
        if wanted > there:
            raise ValueError(f"the reward service wants {wanted:g} {resource}s; the cluster has {there:g}")
    applications = serve.status().applications
    others_use_serve, was_running = bool(applications.keys() - {app_name}), app_name in applications
    try:
        deploy(checkpoint, config, version=version, app_name=app_name)
        yield partial(ServeRewardClient, app_name)
    finally:
        if not was_running:
            serve.delete(app_name) if others_use_serve else serve.shutdown()


def _one_line(error: BaseException) -> str:
    """An exception's type and the last line of its message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
