"""How fast the world model is, as a share of the machine's peak rate: training steps, reward queries, rollouts.

Every figure is the median of several alternating runs; the matrix multiplication rate is measured in the same runs, in
the same type. FLOPs are those of executed matrix products, convolutions and attention, not element-wise work.

    python experiments/benchmarks/world_model.py --size small paper --json world_model.json
    python experiments/benchmarks/world_model.py --device cuda --batch 80 --compile
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

sys.path.remove(str(Path(__file__).parent))  # where this file would shadow the package that it measures

from genie_ray.reproducing.flops import count_flops
from world_model import maskgit
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieReduxG, GenieReduxGConfig
from world_model.layers.quantizer import QuantizerConfig
from world_model.layers.transformer import transformers
from world_model.maskgit import DecodingConfig
from world_model.published import PUBLISHED_CHOICES
from world_model.rollout import Rollout
from world_model.tokenizer import TokenizerConfig

ACTIONS, PRIMES, PREDICTED, STEPS, PLAYED = 5, 2, 10, 25, 40
SLOW_S = 2.0
MATMUL_SIZES = {"cpu": (1024, 2048, 4096), "cuda": (4096, 8192)}
SMALL = {"dim": 64, "heads": 2, "head_dim": 32}  # experiments/demo.yaml
PUBLISHED = DecodingConfig(steps=STEPS, mode="autoregressive", frames_per_step=2)
ALIGNED = DecodingConfig(steps=STEPS, mode="autoregressive", frames_per_step=1)


@dataclass
class Case:
    """One thing to time."""

    name: str
    frames: int  # processed or predicted in one run
    run: Callable[[], object]
    slow: bool = False  # run once, while its FLOPs are counted
    flops: int = 0
    seconds: float = 0.0
    peak_memory_gb: float | None = None  # on a GPU
    share: float | None = None  # of the matrix multiplication rate


def build_model(size: str, alignment: str, device: torch.device) -> GenieReduxG:
    """A world model with random weights: its speed does not depend on them."""
    if size == "paper":
        tokenizer = TokenizerConfig(quantizer=QuantizerConfig(kind="cosine"), mean_frame=False)
        dynamics = DynamicsConfig(**PUBLISHED_CHOICES | {"alignment": alignment})
    else:
        tokenizer = TokenizerConfig(
            patch_size=8, blocks=1, quantizer=QuantizerConfig(kind="fsq"), mean_frame=True, **SMALL
        )
        dynamics = DynamicsConfig(blocks=2, alignment=alignment, **SMALL)
    return GenieReduxG(GenieReduxGConfig(tokenizer=tokenizer, dynamics=dynamics)).to(device).eval()


def cases(
    size: str, batch: int, device: torch.device, dtype: torch.dtype, *, uncached: bool
) -> tuple[list[Case], list[nn.Module]]:
    """Everything to time for a model size, and the models that may be compiled for it."""
    shifted, aligned = (build_model(size, alignment, device) for alignment in ("shifted", "aligned"))
    length = shifted.dynamics.config.max_frames
    window = PRIMES + PREDICTED

    def clip(games: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = torch.randint(0, 256, (games, frames, 64, 64, 3), dtype=torch.uint8, device=device)
        return pixels, torch.randint(0, ACTIONS, (games, frames - 1), device=device)

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)

    frames_BTHWC, actions_BT = clip(batch, length)
    tokens_BTHW = shifted.tokenizer.encode(frames_BTHWC)
    vectors_KD = shifted.tokenizer.token_vectors().detach()
    learner = build_model(size, "shifted", device)
    tokenizer = build_model(size, "shifted", device).tokenizer.requires_grad_(True)

    def training_step(model: nn.Module, *batch: torch.Tensor) -> Callable[[], None]:
        """Forward, backward, clipping and optimiser; for the dynamics, also encoding the frames."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
        model.train()

        def step() -> None:
            with autocast():
                loss = model(*batch).loss
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 10.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step

    @torch.no_grad()
    def forward() -> None:
        with autocast():
            shifted.dynamics(tokens_BTHW, actions_BT, vectors_KD)

    def reward(games: int) -> Callable[[], None]:
        pixels, actions = clip(games, 5)

        def query() -> None:
            with autocast():
                shifted.uncertainty(pixels[:, :2], actions)

        return query

    def rollout(model: GenieReduxG, decoding: DecodingConfig) -> Callable[[], None]:
        pixels, actions = clip(1, window)

        def run() -> None:
            with autocast():
                model.rollout(pixels[:, :PRIMES], actions, decoding=decoding)

        return run

    def rollout_uncached(model: GenieReduxG, decoding: DecodingConfig) -> Callable[[], None]:
        """The same rollout in fp32, with every frame recomputed at each step."""
        pixels, actions = clip(1, window)

        @torch.no_grad()
        def run() -> None:
            vectors = model.tokenizer.token_vectors()
            primes = model.tokenizer.encode(pixels[:, :PRIMES])

            def predict(tokens: torch.Tensor, first: int) -> torch.Tensor:
                return model.dynamics(tokens, actions[:, : tokens.shape[1] - 1], vectors, first=first)

            tokens = maskgit.decode(predict, primes, PREDICTED, mask_token=model.dynamics.mask_token, decoding=decoding)
            model.tokenizer.decode(torch.cat([primes, tokens], dim=1))

        return run

    def play() -> None:
        pixels, actions = clip(1, PRIMES)
        with autocast():
            rollout = Rollout(aligned, pixels, actions, decoding=DecodingConfig(steps=4))
            for _ in range(PLAYED):  # longer than a clip, so that a new one is started
                rollout.step(torch.zeros(1, dtype=torch.int64, device=device))

    listed = [
        Case(
            f"tokenizer: training step, {batch} × {length} frames",
            batch * length,
            training_step(tokenizer, frames_BTHWC),
        ),
        Case(f"dynamics: forward, {batch} × {length} frames", batch * length, forward),
        Case(
            f"dynamics: training step, {batch} × {length} frames",
            batch * length,
            training_step(learner, frames_BTHWC, actions_BT),
        ),
        Case("reward query, 8 windows", 8, reward(8)),
        Case("reward query, 64 windows", 64, reward(64)),
        Case("one-go rollout", PREDICTED, rollout(shifted, DecodingConfig(steps=STEPS))),
        Case("autoregressive rollout, published", PREDICTED, rollout(shifted, PUBLISHED)),
        Case("autoregressive rollout, aligned", PREDICTED, rollout(aligned, ALIGNED)),
        Case("interactive play, aligned, 4 steps a frame", PLAYED, play),
    ]
    if uncached:
        run = rollout_uncached(shifted, PUBLISHED)
        listed.append(Case("autoregressive rollout, published, uncached fp32", PREDICTED, run, slow=True))
    return listed, [tokenizer, learner, shifted]


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of one run."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of a few square matrix products; no larger one is tried after one that is slow."""
    rates = []
    for size in MATMUL_SIZES[device.type]:
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

        def multiply(a: torch.Tensor = a, b: torch.Tensor = b) -> torch.Tensor:
            return a @ b

        if timed(multiply, device) > SLOW_S:  # a CPU may have no unit for this type
            rates.append(2 * size**3 / timed(multiply, device))
            break
        rates.append(2 * size**3 / min(timed(multiply, device) for _ in range(3)))
    return max(rates)


def measure(listed: list[Case], runs: int, device: torch.device, dtype: torch.dtype) -> float:
    """Fills in seconds and share of each case; returns the median matrix multiplication rate."""
    rates: list[float] = []
    seconds: dict[str, list[float]] = {case.name: [] for case in listed}
    for turn in range(runs):
        print(f"turn {turn + 1} of {runs}", file=sys.stderr)
        rates.append(matmul_rate(device, dtype))
        for case in listed:
            if not case.slow:
                seconds[case.name].append(timed(case.run, device))
    rate = statistics.median(rates)
    for case in listed:
        if not case.slow:
            case.seconds = statistics.median(seconds[case.name])
            case.share = case.flops / case.seconds / rate
    return rate


def time_once(case: Case, device: torch.device) -> None:
    """Fills in the seconds of a single run."""
    case.seconds = timed(case.run, device)


def warm_up(listed: list[Case], compiled: list[nn.Module], device: torch.device) -> None:
    """Runs everything once; counts its FLOPs (before compilation, which hides them) and its memory."""
    for case in listed:
        print(f"warming up: {case.name}", file=sys.stderr)
        case.flops = count_flops(partial(time_once, case, device))
    for stack in (stack for model in compiled for stack in transformers(model)):
        stack.compile_halves()
    quick = [case for case in listed if not case.slow]
    for case in quick if compiled else []:
        case.run()
    for case in quick if device.type == "cuda" else []:
        torch.cuda.reset_peak_memory_stats(device)
        case.run()
        case.peak_memory_gb = torch.cuda.max_memory_allocated(device) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", nargs="+", choices=("small", "paper"), default=["small", "paper"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--batch", type=int, default=1, help="clips in a training step")
    parser.add_argument("--runs", type=int, default=5, help="runs to take the median over")
    parser.add_argument("--compile", action="store_true", help="torch.compile the stacks (not in cached rollouts)")
    parser.add_argument("--only", default="", metavar="TEXT", help="run only cases with TEXT in their name")
    parser.add_argument("--no-uncached", action="store_true", help="leave out the slow rollout without cache")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    device, dtype = torch.device(arguments.device), {"fp32": torch.float32, "bf16": torch.bfloat16}[arguments.dtype]
    document = {"device": str(device), "dtype": arguments.dtype, "threads": torch.get_num_threads(), "sizes": {}}
    for size in arguments.size:
        listed, models = cases(size, arguments.batch, device, dtype, uncached=not arguments.no_uncached)
        listed = [case for case in listed if arguments.only in case.name]
        warm_up(listed, models if arguments.compile else [], device)
        rate = measure(listed, arguments.runs, device, dtype)
        table = Table(title=f"{size}, {device}, {arguments.dtype}; matrix products: {rate / 1e9:,.0f} GFLOP/s")
        for column in ("", "ms", "frames/s", "GFLOP", "share of rate", "peak GB"):
            table.add_column(column, justify="left" if not column else "right")
        for case in listed:
            share = "" if case.share is None else f"{case.share:.0%}"
            table.add_row(
                case.name,
                f"{1000 * case.seconds:,.1f}",
                f"{case.frames / case.seconds:,.1f}",
                f"{case.flops / 1e9:,.1f}",
                share,
                "" if case.peak_memory_gb is None else f"{case.peak_memory_gb:.1f}",
            )
        Console(width=110).print(table)
        by_name = {case.name: case for case in listed}
        slow = by_name.get("autoregressive rollout, published, uncached fp32")
        cached = by_name.get("autoregressive rollout, published")
        if slow is not None and cached is not None:
            ratio = slow.seconds / cached.seconds
            print(f"autoregressive rollout, published: {ratio:.1f} times as fast as uncached in fp32")
        if device.type == "cpu":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux counts in KiB
            print(f"peak memory of the process so far: {peak:.1f} GB")
        rows = [{key: value for key, value in asdict(case).items() if key != "run"} for case in listed]
        document["sizes"][size] = {"matmul_flops_per_second": rate, "cases": rows}
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
