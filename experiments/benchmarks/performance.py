"""What limits the world model on this machine's CPU, and how its cost grows: the measured part of docs/performance.md.

One thread, processor time, everything in turn in one process, medians over the turns. For a piece of work, three times
are compared: what its matrix products would take at the rate of a large one, what moving the bytes of all other
operations would take at the rate of a large copy, and what it took. Exponents are slopes of log time over log size.

    python experiments/benchmarks/performance.py --page docs/performance.md      # nightly, on an idle machine
"""

from __future__ import annotations

import argparse
import itertools
import math
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

sys.path.remove(str(Path(__file__).parent))  # where this file would shadow the package that it measures

from genie_ray.base.precision import autocast, multiplies_bf16
from genie_ray.reproducing.flops import count_flops
from policies.memory import keep_freed_memory
from world_model.dynamics import DynamicsConfig
from world_model.frozen import FrozenDynamics
from world_model.genie import GenieReduxG, GenieReduxGConfig
from world_model.layers.quantizer import QuantizerConfig
from world_model.maskgit import DecodingConfig
from world_model.tokenizer import TokenizerConfig
from world_model.uncertainty import token_entropy

ACTIONS, HEAD_DIM = 7, 32
BASE = {"dim": 64, "frames": 8, "patch": 8}  # experiments/demo.yaml: frames of 8 × 8 tokens
GROWTH = {"frames": (4, 8, 16), "patch": (16, 8, 4), "dim": (64, 128, 256)}
TOKENS = {16: 16, 8: 64, 4: 256}  # of a frame of 64 × 64, by patch size
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "scaled_dot_product")
MARKS = "<!-- measured: begin -->", "<!-- measured: end -->"


class Traffic(TorchDispatchMode):
    """Counts the bytes that all operations but products and views read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and not any(name in str(func) for name in PRODUCTS):
            outputs = result if isinstance(result, tuple | list) else [result]
            for tensor in (*args, *outputs):
                self.bytes += tensor.numel() * tensor.element_size() if isinstance(tensor, Tensor) else 0
        return result


def build(dim: int, frames: int, patch: int) -> GenieReduxG:
    """The demo's world model in another size, with random weights: its speed does not depend on them."""
    sizes: dict[str, Any] = {"dim": dim, "heads": dim // HEAD_DIM, "head_dim": HEAD_DIM, "max_frames": max(frames, 5)}
    tokenizer = TokenizerConfig(patch_size=patch, blocks=1, quantizer=QuantizerConfig(kind="fsq"), **sizes)
    dynamics = DynamicsConfig(blocks=2, num_actions=ACTIONS, **sizes)
    return GenieReduxG(GenieReduxGConfig(tokenizer=tokenizer, dynamics=dynamics))


def clips(count: int, frames: int) -> tuple[Tensor, Tensor]:
    """Noise: frames, and the actions between them."""
    pixels = torch.randint(0, 256, (count, frames, 64, 64, 3), dtype=torch.uint8)
    return pixels, torch.randint(0, ACTIONS, (count, frames - 1))


def training_step(dim: int, frames: int, patch: int, *, batch: int) -> Callable[[], None]:
    """Forward, backward, clipping and optimiser, with the encoding of the frames."""
    model = build(dim, frames, patch).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    data = clips(batch, frames)

    def step() -> None:
        with autocast("auto", torch.device("cpu")):
            loss = model(*data).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def reward_query(dim: int, frames: int, patch: int, *, batch: int) -> Callable[[], None]:
    """Windows → entropies, as the reward service does; a window has five frames, whatever `frames` says."""
    model = build(dim, frames, patch).eval()
    pixels, actions = clips(batch, 5)
    with autocast("auto", torch.device("cpu")):
        frozen = FrozenDynamics(model.dynamics, model.tokenizer.token_vectors(), copied=True)

    @torch.no_grad()
    def query() -> None:
        with autocast("auto", torch.device("cpu")):
            tokens = model.tokenizer.encode(pixels[:, :2])
        token_entropy(frozen.logits(frozen.last_features(tokens, actions)))

    return query


def rollout(dim: int, frames: int, patch: int, *, batch: int) -> Callable[[], None]:
    """All frames of a clip but the first two, in four steps each."""
    model = build(dim, frames, patch).eval()
    pixels, actions = clips(batch, frames)
    decoding = DecodingConfig(steps=4, mode="autoregressive", frames_per_step=1)

    def run() -> None:
        with autocast("auto", torch.device("cpu")):
            model.rollout(pixels[:, :2], actions, decoding=decoding)

    return run


def medians(works: dict[str, Callable[[], object]], turns: int) -> dict[str, float]:
    """Median processor seconds of each, in turn, after one run that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn, (name, run) in itertools.product(range(turns + 1), works.items()):
        begin = time.process_time()
        run()
        if turn:
            seconds[name].append(time.process_time() - begin)
    return {name: statistics.median(several) for name, several in seconds.items()}


def exponent(sizes: list[float], seconds: list[float]) -> float:
    """Slope of log seconds over log size, by least squares."""
    x, y = ([math.log(value) for value in values] for values in (sizes, seconds))
    return statistics.linear_regression(x, y).slope


def limits(batches: dict[str, int], turns: int) -> list[str]:
    """A row for each piece of work: the shares of its time that products and bytes would take alone."""
    dtype = torch.bfloat16 if multiplies_bf16(torch.device("cpu")) else torch.float32
    side, length = 1024, 2**24
    a, b, c = torch.randn(side, side, dtype=dtype), torch.randn(side, side, dtype=dtype), torch.randn(length)
    into = torch.empty_like(c)
    works: dict[str, Callable[[], object]] = {name: WORKS[name](**BASE, batch=batch) for name, batch in batches.items()}
    counted = {}
    for name, work in works.items():
        with Traffic() as traffic:
            work()
        counted[name] = count_flops(work), traffic.bytes
    works |= {"product": lambda: a @ b, "copy": lambda: into.copy_(c)}
    seconds = medians(works, turns)
    per_flop, per_byte = seconds["product"] / (2 * side**3), seconds["copy"] / (8 * length)
    rows = ["| | matrix products | bytes of all else | the rest |", "|---|---|---|---|"]
    for name, (flops, moved) in counted.items():
        products, bytes_ = flops * per_flop / seconds[name], moved * per_byte / seconds[name]
        rows.append(f"| {name} | {products:.0%} | {bytes_:.0%} | {1 - products - bytes_:.0%} |")
    return rows


def growth(batches: dict[str, int], turns: int, few: bool) -> list[str]:
    """A row for each piece of work: the exponents of its time in frames, tokens and width."""
    rows = ["| | frames | tokens of a frame | width |", "|---|---|---|---|"]
    for name, batch in batches.items():
        cells = []
        for key, every in GROWTH.items():
            sizes = every[:2] if few else every
            if name == "reward query" and key == "frames":  # its windows have five
                cells.append("")
                continue
            works = {str(size): WORKS[name](**BASE | {key: size}, batch=batch) for size in sizes}
            seconds = list(medians(works, turns).values())
            measured = [float(TOKENS[size] if key == "patch" else size) for size in sizes]
            if name == "rollout" and key == "frames":
                measured = [size - 2 for size in measured]  # two are given
            cells.append(f"{exponent(measured, seconds):.2f}")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


WORKS: dict[str, Callable[..., Callable[[], None]]] = {
    "training step": training_step,
    "reward query": reward_query,
    "rollout": rollout,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=7, help="turns to take the median over")
    parser.add_argument("--smoke", action="store_true", help="one turn of tiny batches, two sizes: only that it runs")
    parser.add_argument("--page", type=Path, help="page whose measured part is replaced; default: print it")
    arguments = parser.parse_args()
    begin, end = MARKS
    page = "" if arguments.page is None else arguments.page.read_text()
    if arguments.page is not None and (begin not in page or end not in page):
        sys.exit(f"--page is {arguments.page}: must hold the lines {begin} and {end}")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    turns = 1 if arguments.smoke else arguments.turns
    batches = dict.fromkeys(WORKS, 1) if arguments.smoke else {"training step": 4, "reward query": 32, "rollout": 1}
    precision = "bf16" if multiplies_bf16(torch.device("cpu")) else "fp32"
    version = f"Python {platform.python_version()}, PyTorch {torch.__version__}"
    head = f"One thread, {precision}, {version}, medians of {turns} turns."
    text = "\n".join([head, "", *limits(batches, turns), "", *growth(batches, turns, arguments.smoke)])
    if arguments.page is None:
        print(text)
        return
    pattern = f"{re.escape(begin)}.*{re.escape(end)}"
    arguments.page.write_text(re.sub(pattern, lambda _: f"{begin}\n{text}\n{end}", page, flags=re.DOTALL))


if __name__ == "__main__":
    main()
