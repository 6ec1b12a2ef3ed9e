"""How rewards and training grow with the number of nodes; collection is in scaling.py.

Two cores cannot show what a cluster does, so real workers are slowed to a fixed rate and do not compete for a core: 1,
2 and 4 of them, as on as many nodes of one worker. The share of linear growth is told.

    rewards     replicas with a real world model judge `WINDOWS_PER_S` windows a second each; callers in processes of
                their own keep them busy. Told, too: the processor time of a caller for a request. Not to be quoted
                yet: in short runs, more windows are counted than the replicas' rate allows.
    training    real data-parallel workers (gloo) share a batch of four pieces, each of which takes `PIECE_S` of waiting
                in its forward pass. An iteration of n workers takes 4 · piece / n + rest: a least-squares fit gives the
                rest, which does not shrink (gradients, optimiser, logs), and so how many workers make it half of an
                iteration. This is a model, not a measurement at that size.

    python experiments/benchmarks/scaling_stages.py --json scaling_stages.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import serve
from rich.console import Console

sys.path.remove(str(Path(__file__).parent))  # where this file would shadow a module

from genie_ray.base.metrics_log import read_metrics
from genie_ray.base.session import RayConfig, ray_session
from genie_ray.collecting.collection import collect
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.plan import Policy
from genie_ray.envs.config import EnvConfig
from genie_ray.games.roms import require_rom, resolve_game
from genie_ray.rewards.client import DEPLOYMENT, ServeRewardClient
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.deployment import MAX_ONGOING, check_checkpoint, replica_settings
from genie_ray.rewards.replica import RewardModel
from genie_ray.rewards.service import deploy, start_serve
from genie_ray.training import loop
from genie_ray.training.config import TrainingConfig
from genie_ray.training.job import TrainingJob
from genie_ray.training.tasks import TokenizerTask
from genie_ray.training.train import train
from policies.rewards import WINDOW_ACTIONS
from world_model import checkpoint
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieReduxG, GenieReduxGConfig
from world_model.layers.quantizer import QuantizerConfig
from world_model.tokenizer import TokenizerConfig

GAME = "Kangaroo-Atari2600-v0"
WORKERS = (1, 2, 4)
WINDOWS_PER_S = 120.0  # of a throttled replica
FRAGMENTS, ACTIONS = 4, 12  # of a request
CALLERS = 2  # for each replica
PIECES, PIECE_S = 4, 0.4
SIZES: dict[str, Any] = {"dim": 32, "blocks": 1, "heads": 2, "head_dim": 16}
TOKENIZER = TokenizerConfig(patch_size=16, quantizer=QuantizerConfig(kind="fsq"), **SIZES)


class ThrottledModel(RewardModel):
    """A replica that judges `WINDOWS_PER_S`."""

    def _judge_batch(self, judge: Any, batch: Any) -> Any:
        begin = time.monotonic()
        judged = super()._judge_batch(judge, batch)
        windows = sum(len(part) for _, part in batch)
        time.sleep(max(0.0, windows / WINDOWS_PER_S - (time.monotonic() - begin)))
        return judged


class ThrottledTask(TokenizerTask):
    """A tokenizer's training whose forward pass takes `PIECE_S`."""

    def loss(self, model: Any, batch: Any, generator: Any) -> Any:
        begin = time.monotonic()
        output = super().loss(model, batch, generator)
        time.sleep(max(0.0, PIECE_S - (time.monotonic() - begin)))
        return output


def throttled_loop(setup: Any) -> None:
    """Runs in every train worker, where the loop is still the plain one."""
    from genie_ray.training import loop, tasks

    tasks.TASKS["tokenizer"] = ThrottledTask
    loop.train_loop(setup)


@ray.remote(num_cpus=0)
def ask(app_name: str, seed: int, seconds: float) -> tuple[int, float, float]:
    """Requests rewards, two at a time; returns the answered requests, and processor and other seconds for them."""
    rng, client = np.random.default_rng(seed), ServeRewardClient(app_name)
    size = TOKENIZER.frame_size
    frames = [rng.integers(256, size=(ACTIONS + 1, size, size, 3), dtype=np.uint8) for _ in range(FRAGMENTS)]
    actions = [rng.integers(5, size=ACTIONS) for _ in range(FRAGMENTS)]
    client.submit(frames, actions).answer(60.0)
    answered, sent = 0, [client.submit(frames, actions)]
    begin_cpu, begin = time.process_time(), time.monotonic()
    while time.monotonic() < begin + seconds:
        sent.append(client.submit(frames, actions))
        sent.pop(0).answer(60.0)
        answered += 1
    return answered, time.process_time() - begin_cpu, time.monotonic() - begin


def reward_rate(directory: Path, replicas: int, seconds: float) -> tuple[float, float]:
    """Windows a second of some throttled replicas together, and the processor seconds of a caller for a request."""
    config, names = RewardConfig(), [str(action) for action in range(5)]
    version = check_checkpoint(directory, frame_size=TOKENIZER.frame_size, action_names=names)
    options = {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 0}, "max_ongoing_requests": MAX_ONGOING}
    settings = replica_settings(directory, config, version=version, state=None)
    name = f"scaling-{replicas}"
    deploy(serve.deployment(ThrottledModel, name=DEPLOYMENT).options(**options, user_config=settings).bind(), name)
    answers = ray.get([ask.remote(name, seed, seconds) for seed in range(CALLERS * replicas)])
    serve.delete(name)
    requests = sum(answered for answered, _, _ in answers)
    windows = FRAGMENTS * (ACTIONS - WINDOW_ACTIONS + 1)
    rate = sum(answered * windows / elapsed for answered, _, elapsed in answers)
    return rate, sum(cpu for _, cpu, _ in answers) / requests


def iteration_seconds(data: Path, output: Path, workers: int, iterations: int) -> float:
    """The median time of an iteration with some throttled train workers."""
    config = TrainingConfig(
        iterations=iterations, batch_size=2 * PIECES, accumulate=PIECES // workers, window=4, warmup_iterations=0,
        log_every=1, validate_every=iterations, validation_windows=2, checkpoint_every=iterations, precision="fp32",
    )  # fmt: skip
    job = TrainingJob(kind="tokenizer", output=output, dataset=data, config=config, model=TOKENIZER)
    train(job, RayConfig(train_workers=workers, threads_per_worker=1))
    lines = [line for line in read_metrics(output / "metrics.jsonl") if "steps_per_second" in line]
    return statistics.median(1 / line["steps_per_second"] for line in lines[2:])  # the first ones warm up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="of each; the median counts")
    parser.add_argument("--seconds", type=float, default=20.0, help="of asking for rewards in each run")
    parser.add_argument("--iterations", type=int, default=20, help="of each training")
    parser.add_argument("--smoke", action="store_true", help="one short run of each, to see that it works")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    runs, seconds, iterations = arguments.runs, arguments.seconds, arguments.iterations
    if arguments.smoke:
        runs, seconds, iterations = 1, 4.0, 5
    require_rom(resolve_game(GAME))
    loop.train_loop = throttled_loop
    with tempfile.TemporaryDirectory() as place, ray_session(RayConfig(threads_per_worker=1)):
        data, model = Path(place) / "data", Path(place) / "model"
        collect(data, Policy(name="random"), [GAME], 200, CollectionConfig(), EnvConfig(max_episode_steps=20))
        dynamics = DynamicsConfig(num_actions=5, **SIZES)
        checkpoint.save(GenieReduxG(GenieReduxGConfig(tokenizer=TOKENIZER, dynamics=dynamics)), model, provenance={})
        with start_serve():
            asked = {n: [reward_rate(model, n, seconds) for _ in range(runs)] for n in WORKERS}
        trained = {
            n: [iteration_seconds(data, Path(place) / f"{n}-{run}", n, iterations) for run in range(runs)]
            for n in WORKERS
        }
    rates = {n: statistics.median(rate for rate, _ in asked[n]) for n in WORKERS}
    caller_s = statistics.median(cpu for of_n in asked.values() for _, cpu in of_n)
    times = {n: statistics.median(trained[n]) for n in WORKERS}
    divided, rest = np.linalg.lstsq(
        np.array([[1 / n, 1.0] for n in WORKERS]), np.array([times[n] for n in WORKERS]), rcond=None
    )[0]
    shares = {
        "rewards": {n: rates[n] / (n * rates[1]) for n in WORKERS},
        "training": {n: times[1] / (n * times[n]) for n in WORKERS},
    }
    out = Console()
    for n in WORKERS:
        out.print(f"{n} throttled replicas: {rates[n]:,.1f} windows/s, {shares['rewards'][n]:.2f} of linear")
    out.print(f"a caller: {1e3 * caller_s:.2f} ms of processor time a request of {FRAGMENTS} × {ACTIONS} steps")
    for n in WORKERS:
        out.print(f"{n} throttled train workers: {times[n]:.3f} s an iteration, {shares['training'][n]:.2f} of linear")
    out.print(f"model: {divided:.3f} s are divided among the workers, {rest:.3f} s are not")
    if rest > 0:
        out.print(f"model: half of an iteration is not divided with {divided / rest:,.0f} workers")
    if arguments.json:
        figures = {
            "windows_per_second": rates,
            "caller_ms_per_request": 1e3 * caller_s,
            "iteration_seconds": times,
            "share_of_linear": shares,
            "divided_s": divided,
            "not_divided_s": rest,
        }
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
