"""This checkout against another one: the same trainings and explorers by the real commands, one after the other.

Both do the same work on the same play and from the same checkpoints, alternately, in processes of their own; the ratio
of each turn's rates is told, and the median over the turns. What starting up takes is left out: a rate is that of the
work between the first line of a training's log and its last one.

    git worktree add /tmp/before COMMIT
    python experiments/benchmarks/checkouts.py --against /tmp/before --json checkouts.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

OURS = Path(__file__).parents[2]
PRESET = OURS / "experiments" / "demo.yaml"
POLL_S = 0.02


def genie_ray(checkout: Path, log: Path, *arguments: str | Path, metrics: str = "") -> tuple[Any, ...]:
    """Runs a command with a checkout's code; its output goes to `log`.

    Args:
        metrics: pattern of the metrics file to watch, below the log's directory.

    Returns:
        The time of the file's first line, the line, the time of the last one, and that line.

    Raises:
        SystemExit: the command failed; with the log's last lines.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment |= {"PYTHONPATH": str(checkout), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "genie_ray", *map(str, arguments), "ray.threads_per_worker=1"]
    seen: list[tuple[float, str]] = []
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, cwd=log.parent)
        while process.poll() is None:
            for path in log.parent.glob(metrics) if metrics else ():
                lines = path.read_text().splitlines()
                seen += [(time.perf_counter(), line) for line in lines[len(seen) :]]
            time.sleep(POLL_S)
    if process.returncode:
        sys.exit(f"failed with {checkout}: {' '.join(command)}\n{log.read_text()[-2000:]}")
    return (*seen[0], *seen[-1]) if seen else ()


def rate(watched: tuple[float, str, float, str], key: str) -> float:
    """How much `key` grows in a second, from the first line to the last."""
    begin, first, end, last = watched
    return (json.loads(last)[key] - json.loads(first)[key]) / (end - begin)


def training(name: str, iterations: int) -> list[str]:
    """Overrides for a training that is logged after a quarter of its iterations, and validated and saved at its end."""
    sizes = {"iterations": iterations, "validate_every": iterations, "checkpoint_every": iterations}
    sizes |= {"log_every": max(1, iterations // 4), "warmup_iterations": 0}
    return [f"{name}.{key}={value}" for key, value in sizes.items()]


def train_dynamics(checkout: Path, work: Path, name: str, arguments: argparse.Namespace) -> float:
    """Iterations a second of the dynamics."""
    given: list[str | Path] = ["--data", work / "play", "--tokenizer", work / "tokenizer" / "best", "-c", PRESET]
    sizes = training("train_dynamics", arguments.iterations)
    watched = genie_ray(
        checkout,
        work / f"{name}.log",
        "train",
        "dynamics",
        work / name,
        *given,
        *sizes,
        metrics=f"{name}/metrics.jsonl",
    )
    return rate(watched, "iteration")


def explore(checkout: Path, work: Path, name: str, arguments: argparse.Namespace) -> float:
    """Steps a second of an explorer, judging and learning included."""
    sizes = [f"exploration.{key}={arguments.epochs}" for key in ("epochs", "checkpoint_every", "ppo.evaluation_every")]
    given: list[str | Path] = [
        "--world-model",
        work / "dynamics" / "best",
        "--game",
        arguments.game,
        "-c",
        PRESET,
        *sizes,
    ]
    watched = genie_ray(
        checkout, work / f"{name}.log", "explore", work / name, *given, metrics=f"{name}/*/metrics.jsonl"
    )
    return rate(watched, "env_steps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--against", type=Path, required=True, help="the other checkout's directory")
    parser.add_argument("--game", default="CoinRun")
    parser.add_argument("--turns", type=int, default=3, help="pairs of runs to take the median over")
    parser.add_argument("--iterations", type=int, default=400, help="of a training")
    parser.add_argument("--epochs", type=int, default=4, help="of an explorer, of 2,048 steps")
    parser.add_argument("--steps", type=int, default=3000, help="of random play to train on, in about 20 episodes")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    other = arguments.against.resolve()
    if not (other / "genie_ray").is_dir():
        sys.exit(f"--against is {other}: must be a checkout, which holds genie_ray/")
    cases = {"training dynamics, iterations/s": train_dynamics, "exploring with rewards, steps/s": explore}
    figures: dict[str, Any] = {name: {"ours": [], "other": []} for name in cases}
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        few = max(1, arguments.iterations // 4)
        play = ["--game", arguments.game, f"--steps={arguments.steps}", "-c", str(PRESET)]
        play += [f"env.max_episode_steps={max(16, arguments.steps // 20)}"]  # so that some are held out
        genie_ray(OURS, work / "play.log", "collect", work / "play", *play)
        tokenizer: list[str | Path] = ["train", "tokenizer", work / "tokenizer", "--data", work / "play", "-c", PRESET]
        genie_ray(OURS, work / "tokenizer.log", *tokenizer, *training("train_tokenizer", few))
        dynamics: list[str | Path] = ["train", "dynamics", work / "dynamics", "--data", work / "play", "-c", PRESET]
        given: list[str | Path] = ["--tokenizer", work / "tokenizer" / "best", *training("train_dynamics", few)]
        genie_ray(OURS, work / "dynamics.log", *dynamics, *given)
        for turn in range(arguments.turns):
            for number, (name, case) in enumerate(cases.items()):
                for label, checkout in (("other", other), ("ours", OURS)):
                    measured = case(checkout, work, f"{number}-{label}-{turn}", arguments)
                    figures[name][label].append(measured)
                    print(f"turn {turn + 1} of {arguments.turns}: {name}, {label}: {measured:.2f}", flush=True)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    for name, rates in figures.items():
        ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates["other"], strict=True)]
        rates["ratio"] = statistics.median(ratios)
        print(f"{name}: {rates['ratio']:.2f} times the other's ({', '.join(f'{each:.2f}' for each in ratios)})")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
