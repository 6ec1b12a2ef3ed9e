"""What the reward service costs: windows per second against the bare model, latency, and environment steps per second.

Rates: callers are processes that send fragments as an AutoExplore runner does (8 environments × 25 steps), each with
`--outstanding` requests in flight. The bare model judges the same windows in its own process, like a replica, with the
same batch size and number of threads. Play: a rollout worker of AutoExplore on a real game, with and without rewards.
Measurements alternate over several turns; figures are medians over the turns, ratios are taken within a turn.

    python experiments/benchmarks/reward_service.py --world-model runs/demo/dynamics/best --json reward_service.json
    python experiments/benchmarks/reward_service.py --part play --game Kangaroo-Atari2600-v0
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import ray
import torch
from rich.console import Console
from rich.table import Table

sys.path.remove(str(Path(__file__).parent))  # where world_model.py would shadow the package

from genie_ray.base.precision import Precision
from genie_ray.base.session import ray_session
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.game import register_rllib_env
from genie_ray.games.actions import action_names
from genie_ray.rewards.client import ServeRewardClient
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.judges import UncertaintyJudge
from genie_ray.rewards.service import reward_service
from genie_ray.rewards.state import describe_checkpoint
from genie_ray.rewards.windows import join, unfold
from policies.memory import keep_freed_memory
from policies.rewards import LOOKBACK
from world_model.checkpoint import load_as, save
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieReduxG, GenieReduxGConfig
from world_model.layers.quantizer import QuantizerConfig
from world_model.published import PUBLISHED_CHOICES
from world_model.tokenizer import TokenizerConfig

ENVIRONMENTS, STEPS = 8, 25  # per request
WARM_UP_S = 1.0
STATS_TIMEOUT_S = 30.0


def new_checkpoint(size: str, directory: Path) -> Path:
    """A world model with random weights: its speed does not depend on them."""
    if size == "paper":
        config = GenieReduxGConfig(dynamics=DynamicsConfig(**PUBLISHED_CHOICES))
    else:  # experiments/demo.yaml
        small: dict[str, Any] = {"dim": 64, "heads": 2, "head_dim": 32}
        tokenizer = TokenizerConfig(patch_size=8, blocks=1, quantizer=QuantizerConfig(kind="fsq"), **small)
        dynamics = DynamicsConfig(blocks=2, **small)
        config = GenieReduxGConfig(tokenizer=tokenizer, dynamics=dynamics)
    save(GenieReduxG(config), directory / size, provenance={})
    return directory / size


def fragments(model: GenieReduxG, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Noise in the form of a rollout worker's request."""
    rng, size = np.random.default_rng(seed), model.tokenizer.config.frame_size
    steps = STEPS + LOOKBACK
    frames = [rng.integers(0, 256, (steps + 1, size, size, 3), np.uint8) for _ in range(ENVIRONMENTS)]
    return frames, [rng.integers(0, model.num_actions, steps) for _ in range(ENVIRONMENTS)]


@ray.remote(num_cpus=0)
class Bare:
    """The model without a service, with a replica's thread and memory settings."""

    def __init__(self, checkpoint: Path, config: RewardConfig) -> None:
        size = config.batch_size
        model = load_as(GenieReduxG, checkpoint, "cuda" if config.gpus else "cpu")
        requests = [fragments(model, seed) for seed in range(math.ceil(size / (ENVIRONMENTS * STEPS)))]
        windows = join([unfold(*one) for request in requests for one in zip(*request, strict=True)])
        self._judge = UncertaintyJudge(model, config, "bare")
        if not config.gpus:
            keep_freed_memory()
        self._batches = [windows[end - size : end] for end in range(size, len(windows) + 1, size)]  # whole ones only
        self._thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(config.threads,))

    def rate(self, seconds: float) -> float:
        """Windows per second."""
        return self._thread.submit(self._rate, seconds).result()

    def _rate(self, seconds: float) -> float:
        judged, begin = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - begin) < seconds:
            for batch in self._batches:
                self._judge.judge(batch)
                judged += len(batch)
        return judged / elapsed


@ray.remote(num_cpus=0)
class Caller:
    """A process that requests rewards."""

    def __init__(self, factory: Callable[[], ServeRewardClient], question: Any, outstanding: int) -> None:
        self._client, self._question, self._outstanding = factory(), question, outstanding

    def ask(self, seconds: float) -> list[float]:
        """Sends requests for `seconds`; returns the seconds that each one took."""
        sent: deque[tuple[float, Any]] = deque()
        latencies: list[float] = []
        end = time.perf_counter() + seconds
        while sent or time.perf_counter() < end:
            while len(sent) < self._outstanding and time.perf_counter() < end:
                sent.append((time.perf_counter(), self._client.submit(*self._question)))
            begin, future = sent.popleft()
            future.result(timeout_s=600)
            latencies.append(time.perf_counter() - begin)
        return latencies


def rates(checkpoint: Path, config: RewardConfig, arguments: argparse.Namespace) -> dict[str, Any]:
    """Windows per second and latency, bare and with 1, 2, 4 callers."""
    question = fragments(load_as(GenieReduxG, checkpoint), 0)
    windows = ENVIRONMENTS * STEPS
    bare: list[float] = []
    shares: dict[int, list[float]] = {count: [] for count in arguments.callers}
    rates_of: dict[int, list[float]] = {count: [] for count in arguments.callers}
    latencies: dict[int, list[float]] = {count: [] for count in arguments.callers}
    described = describe_checkpoint(checkpoint)
    names = described["action_names"] or [str(action) for action in range(described["num_actions"])]
    if 2 * (config.gpus or 0) > (there := ray.cluster_resources().get("GPU", 0)):
        raise ValueError(f"--gpus is {config.gpus:g}; allowed: at most {there / 2:g}, as the bare model takes the same")
    alone = Bare.options(num_gpus=config.gpus).remote(checkpoint, config)

    def bare_rate(seconds: float) -> float:
        return ray.get(alone.rate.remote(seconds))

    with reward_service(checkpoint, config, frame_size=described["frame_size"], action_names=names) as service:
        callers = [Caller.remote(service, question, arguments.outstanding) for _ in range(max(arguments.callers))]
        ray.get([caller.ask.remote(WARM_UP_S) for caller in callers])
        bare_rate(WARM_UP_S)
        for turn in range(arguments.turns):
            print(f"turn {turn + 1} of {arguments.turns}", file=sys.stderr)
            before = bare_rate(arguments.seconds / 2)
            rate_of_turn = {}
            for count in arguments.callers:
                begin = time.perf_counter()
                answers = ray.get([caller.ask.remote(arguments.seconds) for caller in callers[:count]])
                elapsed = time.perf_counter() - begin
                answered = [latency for several in answers for latency in several]
                rate_of_turn[count] = len(answered) * windows / elapsed
                latencies[count] += answered
            bare.append((before + bare_rate(arguments.seconds / 2)) / 2)
            for count, rate in rate_of_turn.items():
                rates_of[count].append(rate)
                shares[count].append(rate / bare[-1])
    rows = []
    for count in arguments.callers:
        p50, p95 = np.quantile(latencies[count], [0.5, 0.95]).tolist()
        rows.append(
            {
                "callers": count,
                "windows_per_second": statistics.median(rates_of[count]),
                "share_of_bare": statistics.median(shares[count]),
                "latency_p50_s": p50,
                "latency_p95_s": p95,
            }
        )
    return {"bare_windows_per_second": statistics.median(bare), "windows_per_request": windows, "service": rows}


def play(checkpoint: Path, config: RewardConfig, arguments: argparse.Namespace) -> dict[str, Any]:
    """Environment steps per second of one rollout worker, with rewards and without.

    With rewards, a step counts when it comes back with its reward.

    Raises:
        RuntimeError: a fragment got no rewards.
    """
    from ray.rllib.core import COMPONENT_RL_MODULE
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
    from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

    from policies.autoexplore.algorithm import AutoExploreConfig
    from policies.autoexplore.config import AutoExploreLearningConfig, AutoExploreModuleConfig
    from policies.judged.env_runner import CuriosityEnvRunner

    described = describe_checkpoint(checkpoint)
    known = {"action_set": ",".join(described["action_names"])} if described["action_names"] else {}
    env = EnvConfig(frame_size=described["frame_size"], **known)
    names = action_names(env.action_set)
    learning = AutoExploreLearningConfig(num_envs=ENVIRONMENTS, fragment_length=STEPS)
    network = AutoExploreModuleConfig(channels=(8, 16, 32, 32), lstm_size=128)  # experiments/demo.yaml
    torch.set_num_threads(1)
    measured: dict[str, list[float]] = {"with": [], "without": []}
    with reward_service(checkpoint, config, frame_size=env.frame_size, action_names=names) as service:
        settings = (
            AutoExploreConfig()
            .environment(register_rllib_env(), env_config={"game": arguments.game, "env": env})
            .training(learning=learning, network=network, reward_client_factory=service)
        )
        plain, curious = SingleAgentEnvRunner(config=settings), CuriosityEnvRunner(config=settings)
        weights = {COMPONENT_RL_MODULE: curious.module.get_state(), WEIGHTS_SEQ_NO: 0}

        def play_without_rewards() -> int:
            return sum(map(len, plain.sample()))

        def play_with_rewards() -> int:
            fragment = curious.play_fragment(weights=weights, env_steps=0)
            if fragment.dropped_in_a_row:
                raise RuntimeError("a fragment got no rewards: the measurement is invalid")
            return fragment.steps

        ways = {"without": play_without_rewards, "with": play_with_rewards}
        for play_on in ways.values():
            play_on()
        for turn in range(arguments.turns):
            print(f"turn {turn + 1} of {arguments.turns}", file=sys.stderr)
            for name, play_on in ways.items():
                begin, steps = time.perf_counter(), 0
                while time.perf_counter() - begin < arguments.seconds:
                    steps += play_on()
                measured[name].append(steps / (time.perf_counter() - begin))
        judged = service().ask("stats", timeout_s=STATS_TIMEOUT_S)["windows"]
        for runner in (plain, curious):
            runner.stop()
    ratio = [rewarded / bare for rewarded, bare in zip(measured["with"], measured["without"], strict=True)]
    return {
        "game": arguments.game,
        "windows_judged": judged,
        "steps_per_second": statistics.median(measured["with"]),
        "steps_per_second_without_rewards": statistics.median(measured["without"]),
        "share": statistics.median(ratio),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--world-model", type=Path, help="checkpoint; default: random weights of --size")
    parser.add_argument("--size", choices=("small", "paper"), default="small")
    parser.add_argument("--part", nargs="+", choices=("rates", "play"), default=["rates", "play"])
    parser.add_argument("--callers", nargs="+", type=int, default=[1, 2, 4])
    parser.add_argument("--outstanding", type=int, default=2, help="requests that a caller has in flight")
    parser.add_argument("--batch", type=int, default=64, help="windows per forward pass")
    parser.add_argument("--precision", choices=get_args(Precision), default="auto", help="of the model")
    parser.add_argument(
        "--gpus",
        type=float,
        default=torch.cuda.is_available() / 2,
        help="GPUs of the service, and the same share for the bare model",
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a measurement")
    parser.add_argument("--turns", type=int, default=3, help="turns to take the median over")
    parser.add_argument("--game", default="Kangaroo-Atari2600-v0")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    document: dict[str, Any] = {name: getattr(arguments, name) for name in ("batch", "outstanding", "precision")}
    with tempfile.TemporaryDirectory() as scratch, ray_session():
        checkpoint = arguments.world_model or new_checkpoint(arguments.size, Path(scratch))
        config = RewardConfig(batch_size=arguments.batch, precision=arguments.precision, gpus=arguments.gpus)
        if "rates" in arguments.part:
            document["rates"] = measured = rates(checkpoint, config, arguments)
            bare = measured["bare_windows_per_second"]
            table = Table(
                title=f"{measured['windows_per_request']} windows per request; bare model {bare:,.0f} windows/s"
            )
            for column in ("callers", "windows/s", "of the bare model", "p50 ms", "p95 ms"):
                table.add_column(column, justify="right")
            for row in measured["service"]:
                table.add_row(
                    str(row["callers"]),
                    f"{row['windows_per_second']:,.0f}",
                    f"{row['share_of_bare']:.0%}",
                    f"{1000 * row['latency_p50_s']:,.0f}",
                    f"{1000 * row['latency_p95_s']:,.0f}",
                )
            Console(width=110).print(table)
        if "play" in arguments.part:
            document["play"] = played = play(checkpoint, config, arguments)
            print(
                f"{played['game']}: {played['steps_per_second']:,.0f} steps/s with rewards, "
                f"{played['steps_per_second_without_rewards']:,.0f} without: {played['share']:.0%}"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
