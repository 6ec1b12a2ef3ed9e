"""How rewards and training grow with the number of nodes; collection is in scaling.py.

Two cores cannot show what a cluster does, so real workers are slowed to a fixed rate and do not compete for a core: 1,
2 and 4 of them, as on as many nodes of one worker. The share of linear growth is told.

    rewards     replicas with a real world model judge `WINDOWS_PER_S` windows a second each; a caller for each, in a
                process of its own, keeps them busy with --outstanding requests at a time. Counted is what the replicas
                judged while all callers asked; the run fails if one beat its rate. Told, too: how busy the replicas
                were, and the processor time of a caller for a request, from which follows how many windows a second a
                core of callers can ask for.
    training    real data-parallel workers (gloo) share a batch of four pieces, each of which takes `PIECE_S` of waiting
                in its forward pass. An iteration of n workers takes 4 · piece / n + rest: a least-squares fit gives the
                rest, which does not shrink (gradients, optimiser, logs), and so how many workers make it half of an
                iteration. This is a model, not a measurement at that size.

    python experiments/benchmarks/scaling_stages.py --json scaling_stages.json
"""

from __future__ import annotations

import argparse
import json
import os
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
WINDOWS = FRAGMENTS * (ACTIONS - WINDOW_ACTIONS + 1)
PIECES, PIECE_S = 4, 0.4
SIZES: dict[str, Any] = {"dim": 32, "blocks": 1, "heads": 2, "head_dim": 16}
TOKENIZER = TokenizerConfig(patch_size=16, quantizer=QuantizerConfig(kind="fsq"), **SIZES)


class ThrottledModel(RewardModel):
    """A replica that judges `WINDOWS_PER_S`, and notes each batch: its begin, its end, its windows."""

    def __init__(self, notes: str) -> None:
        super().__init__()
        self._notes = Path(notes) / f"{os.getpid()}.txt"

    def _judge_batch(self, judge: Any, batch: Any) -> Any:
        begin = time.monotonic()
        judged = super()._judge_batch(judge, batch)
        windows = sum(len(part) for _, part in batch)
        time.sleep(max(0.0, windows / WINDOWS_PER_S - (time.monotonic() - begin)))
        with self._notes.open("a") as notes:
            notes.write(f"{begin!r} {time.monotonic()!r} {windows}\n")
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
class Caller:
    """Requests rewards, some (`outstanding`) at a time."""

    def __init__(self, app_name: str, seed: int, outstanding: int) -> None:
        self._outstanding = outstanding
        rng, size = np.random.default_rng(seed), TOKENIZER.frame_size
        frames = [rng.integers(256, size=(ACTIONS + 1, size, size, 3), dtype=np.uint8) for _ in range(FRAGMENTS)]
        self._question = frames, [rng.integers(5, size=ACTIONS) for _ in range(FRAGMENTS)]
        self._client = ServeRewardClient(app_name)

    def warm_up(self) -> None:
        self._client.submit(*self._question).answer(60.0)

    def ask(self, seconds: float) -> tuple[float, int, float]:
        """When it began, the answered requests, and the processor seconds for them."""
        begin_cpu, begin, answered = time.process_time(), time.monotonic(), 0
        sent = [self._client.submit(*self._question) for _ in range(self._outstanding)]
        while sent:
            sent.pop(0).answer(60.0)
            answered += 1
            if time.monotonic() < begin + seconds:
                sent.append(self._client.submit(*self._question))
        return begin, answered, time.process_time() - begin_cpu


def judged_between(notes: Path, begin: float, end: float) -> dict[str, tuple[float, float]]:
    """Windows and busy seconds of each replica in a span of time; a batch's windows count evenly over its time.

    Raises:
        RuntimeError: a replica judged faster than it may, or two batches at a time.
    """
    found = {}
    for path in notes.glob("*.txt"):
        begins, ends, windows = np.loadtxt(path, ndmin=2).T
        if (windows > 1.001 * WINDOWS_PER_S * (ends - begins)).any() or (begins[1:] < ends[:-1]).any():
            raise RuntimeError(f"replica {path.stem} judged more than {WINDOWS_PER_S} windows/s: nothing to be quoted")
        inside = np.clip(np.minimum(ends, end) - np.maximum(begins, begin), 0, None)
        found[path.stem] = float((windows * inside / (ends - begins)).sum()), float(inside.sum())
    return found


def reward_rate(
    directory: Path, notes: Path, replicas: int, seconds: float, outstanding: int
) -> tuple[float, float, float]:
    """Windows a second of some throttled replicas together, the share of time in which they judged, and the processor
    seconds of a caller for a request.
    """
    config, names = RewardConfig(), [str(action) for action in range(5)]
    version = check_checkpoint(directory, frame_size=TOKENIZER.frame_size, action_names=names)
    options = {"num_replicas": replicas, "ray_actor_options": {"num_cpus": 0}, "max_ongoing_requests": MAX_ONGOING}
    settings = replica_settings(directory, config, version=version, state=None)
    name = f"scaling-{replicas}"
    notes.mkdir()
    app = serve.deployment(ThrottledModel, name=DEPLOYMENT).options(**options, user_config=settings).bind(str(notes))
    deploy(app, name)
    callers = [Caller.remote(name, seed, outstanding) for seed in range(replicas)]
    ray.get([caller.warm_up.remote() for caller in callers])  # else they would begin one after the other
    asked = ray.get([caller.ask.remote(seconds) for caller in callers])
    for caller in callers:
        ray.kill(caller)
    serve.delete(name)
    begins, answered, cpu = zip(*asked, strict=True)
    begin, end = max(begins), min(begins) + seconds
    judged = judged_between(notes, begin, end)
    rate, busy = (sum(column) / (end - begin) for column in zip(*judged.values(), strict=True))
    return rate, busy / replicas, sum(cpu) / sum(answered)


def iteration_seconds(data: Path, output: Path, workers: int, iterations: int) -> float:
    """The time of the fastest iteration with some throttled train workers; others on the machine only slow them."""
    config = TrainingConfig(
        iterations=iterations, batch_size=2 * PIECES, accumulate=PIECES // workers, window=4, warmup_iterations=0,
        log_every=1, validate_every=iterations, validation_windows=2, checkpoint_every=iterations, precision="fp32",
    )  # fmt: skip
    job = TrainingJob(kind="tokenizer", output=output, dataset=data, config=config, model=TOKENIZER)
    train(job, RayConfig(train_workers=workers, threads_per_worker=1))
    lines = [line for line in read_metrics(output / "metrics.jsonl") if "steps_per_second" in line]
    return min(1 / line["steps_per_second"] for line in lines[2:])  # the first ones warm up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=3, help="of each; the median counts")
    parser.add_argument("--seconds", type=float, default=20.0, help="of asking for rewards in each run")
    parser.add_argument(
        "--outstanding", type=int, default=4, help="requests of a caller; there is one for each replica"
    )
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
            asked = {
                n: [
                    reward_rate(model, Path(place) / f"notes-{n}-{run}", n, seconds, arguments.outstanding)
                    for run in range(runs)
                ]
                for n in WORKERS
            }
        trained = {
            n: [iteration_seconds(data, Path(place) / f"{n}-{run}", n, iterations) for run in range(runs)]
            for n in WORKERS
        }
    rates, busy = ({n: statistics.median(run[part] for run in asked[n]) for n in WORKERS} for part in (0, 1))
    caller_s = statistics.median(cpu for of_n in asked.values() for *_, cpu in of_n)
    of_a_core = WINDOWS / caller_s
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
        out.print(
            f"{n} throttled replicas: {rates[n]:,.1f} windows/s, {shares['rewards'][n]:.2f} of linear, "
            f"busy for {busy[n]:.2f} of the time"
        )
    out.print(
        f"a caller: {1e3 * caller_s:.2f} ms of processor time a request of {WINDOWS} windows; a core of callers asks "
        f"for {of_a_core:,.0f} windows/s"
    )
    for n in WORKERS:
        out.print(f"{n} throttled train workers: {times[n]:.3f} s an iteration, {shares['training'][n]:.2f} of linear")
    out.print(f"model: {divided:.3f} s are divided among the workers, {rest:.3f} s are not")
    if rest > 0:
        out.print(f"model: half of an iteration is not divided with {divided / rest:,.0f} workers")
    if arguments.json:
        figures = {
            "windows_per_second": rates,
            "replicas_busy": busy,
            "caller_ms_per_request": 1e3 * caller_s,
            "windows_per_second_of_a_callers_core": of_a_core,
            "iteration_seconds": times,
            "share_of_linear": shares,
            "divided_s": divided,
            "not_divided_s": rest,
        }
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
