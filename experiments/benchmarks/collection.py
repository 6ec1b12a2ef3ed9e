"""How fast play is collected, as a share of the bare emulators' speed, and what it costs in bytes and memory.

Three ways of playing the same games, with a process per game, take turns; figures are medians over several turns:

    bare emulator   random actions; Stable-Retro's own `step` for each skipped frame, the last one padded and resized
    environment     random actions; `RetroEnv`, which does not fetch the images of skipped frames
    collection      rollout workers that write a replay dataset, shard by shard; their start-up is not counted

    python experiments/benchmarks/collection.py --json collection.json
    python experiments/benchmarks/collection.py --runs 1 --seconds 600      # memory over ten minutes
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from rich.console import Console
from rich.table import Table

sys.path.remove(str(Path(__file__).parent))  # where this file would shadow a module

from genie_ray.base.frames import fit_frame
from genie_ray.base.session import RayConfig, ray_session
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.plan import Collection, Policy
from genie_ray.collecting.shards import Shard
from genie_ray.collecting.worker import RolloutWorker
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.retro import RetroEnv
from genie_ray.games.roms import INTEGRATIONS, require_rom, resolve_game
from genie_ray.replay.dataset import index_episodes

GAMES = ["Kangaroo-Atari2600-v0", "Hero-Atari2600-v0"]
WARM_UP = 100  # steps
LONG_SHARD = 5_000  # steps between two memory samples
ENV = EnvConfig()


class BareEmulator:
    """Stable-Retro in a plain loop."""

    def __init__(self, game: str) -> None:
        import stable_retro

        self._buttons = RetroEnv(game, ENV).button_table
        self._env = stable_retro.RetroEnv(
            game, inttype=INTEGRATIONS, use_restricted_actions=stable_retro.Actions.ALL, render_mode="rgb_array"
        )

    def play(self, steps: int, turn: int) -> None:
        self._env.reset()
        length = 0
        for action in np.random.default_rng(turn).integers(len(self._buttons), size=steps):
            for _ in range(ENV.frame_skip):
                screen, _, terminated, _, _ = self._env.step(self._buttons[action])
                if terminated:
                    break
            fit_frame(screen, ENV.frame_size, ENV.fit)
            length += 1
            if terminated or length == ENV.max_episode_steps:
                self._env.reset()
                length = 0


class Environment:
    """Our environment in a plain loop."""

    def __init__(self, game: str) -> None:
        self._env = RetroEnv(game, ENV)

    def play(self, steps: int, turn: int) -> None:
        self._env.reset()
        for action in np.random.default_rng(turn).integers(int(self._env.action_space.n), size=steps):
            _, _, terminated, truncated, _ = self._env.step(action)
            if terminated or truncated:
                self._env.reset()


class Worker(RolloutWorker):
    """A rollout worker that plays one game and reports its memory."""

    def __init__(self, game: str, collection: Collection) -> None:
        super().__init__(collection)
        self._plays = game

    def play(self, steps: int, turn: int) -> None:
        super().play(Shard(game=self._plays, number=turn, first=turn * 1_000_000, count=steps, unit="steps"))

    def memory(self) -> int:
        """Resident bytes now."""
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def rate_of(players: Sequence[Any], steps: int, turn: int) -> float:
    """Steps per second of all players together."""
    begin = time.perf_counter()
    ray.get([player.play.remote(steps, turn) for player in players])
    return len(players) * steps / (time.perf_counter() - begin)


def measure_rates(ways: dict[str, list[Any]], steps: int, runs: int) -> dict[str, list[float]]:
    for players in ways.values():
        rate_of(players, WARM_UP, turn=0)
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(1, runs + 1):
        print(f"turn {turn} of {runs}", file=sys.stderr)
        for way, players in ways.items():
            rates[way].append(rate_of(players, steps, turn))
    return rates


def measure_memory(workers: list[Any], seconds: float, turn: int) -> list[tuple[int, int]]:
    """Samples over time: steps per worker since the rates were measured, and resident bytes of the largest worker."""
    end, played = time.monotonic() + seconds, 0
    samples = [(0, max(ray.get([worker.memory.remote() for worker in workers])))]
    while time.monotonic() < end:
        turn += 1
        rate_of(workers, LONG_SHARD, turn)
        played += LONG_SHARD
        samples.append((played, max(ray.get([worker.memory.remote() for worker in workers]))))
    return samples


def start(games: Sequence[str], policy: Policy, directory: Path) -> dict[str, list[Any]]:
    """All players, by way."""
    collection = Collection(
        output=directory,
        policy=policy,
        games=tuple(games),
        per_game=1,
        unit="steps",
        config=CollectionConfig(),
        env=ENV,
        seed=0,
    )
    makers: dict[str, Callable[[str], Any]] = {
        "bare emulator": ray.remote(num_cpus=0)(BareEmulator).remote,
        "environment": ray.remote(num_cpus=0)(Environment).remote,
        "collection": lambda game: ray.remote(num_cpus=0, concurrency_groups={"watch": 1})(Worker).remote(
            game, collection
        ),
    }
    return {way: [make(game) for game in games] for way, make in makers.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--game", nargs="+", default=GAMES, help="one process each")
    parser.add_argument("--policy", type=Path, help="directory of the agents that play, <directory>/<game>/module")
    parser.add_argument("--steps", type=int, default=3_000, help="steps per process and turn")
    parser.add_argument("--runs", type=int, default=5, help="turns to take the median over")
    parser.add_argument("--seconds", type=float, default=0.0, help="seconds to keep collecting and sample memory")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    games = [resolve_game(game) for game in arguments.game]
    for game in games:
        require_rom(game)
    policy = Policy(name="random")
    if arguments.policy is not None:
        policy = Policy(name=arguments.policy.name, directory=arguments.policy.resolve(), epsilon=0.1)
    with ray_session(RayConfig()), tempfile.TemporaryDirectory() as directory:
        ways = start(games, policy, Path(directory))
        rates = measure_rates(ways, arguments.steps, arguments.runs)
        memory = measure_memory(ways["collection"], arguments.seconds, arguments.runs)
        frames = sum(episode.length + 1 for episode in index_episodes(directory))
        size = sum(path.stat().st_size for path in Path(directory).rglob("*.parquet")) / frames
    table = Table(title=f"{len(games)} processes on {os.cpu_count()} cores: {', '.join(games)}")
    for column in ("", "steps/s", "share of bare"):
        table.add_column(column, justify="left" if not column else "right")
    for way, measured in rates.items():
        share = statistics.median(ours / bare for ours, bare in zip(measured, rates["bare emulator"], strict=True))
        table.add_row(way, f"{statistics.median(measured):,.0f}", f"{share:.0%}")
    Console(width=100).print(table)
    print(f"{size:.0f} bytes per frame on disk")
    for played, resident in (memory[0], *memory[1:][-1:]):
        print(f"memory of a rollout worker after {played:,} steps: {resident / 1e6:.0f} MB")
    if arguments.json:
        document = {"games": games, "cores": os.cpu_count(), "rates": rates, "bytes_per_frame": size}
        document["memory"] = [{"steps": played, "bytes": resident} for played, resident in memory]
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
