"""Rounds of explore → collect → fine-tune on a cluster of three nodes whose processes are killed at random.

    python -m tests.soak.run --minutes 120 --out soak

Every process of every kind may die at any time (`killing.KINDS`): SIGKILL to the driver, to Ray's workers, to single
emulators, and to whole nodes, which are replaced. A driver that was killed, or that ended with one line of an error,
is started again with the same command. After each round, everything that was recorded is checked
(`rounds.Round.wrong`); in the end, the last round's collection and training are repeated in peace and must be equal,
byte for byte. Writes `report.json`.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.running import ENVIRONMENT, Nodes
from tests.genie_ray.tiny_world import guided_model
from tests.soak.killing import DRIVER, KINDS, Killer, actors, command_of
from tests.soak.rounds import Round
from world_model import checkpoint

NODES = 3
PATIENT = {"RAY_health_check_failure_threshold": "12"}  # half seconds: nodes should die by kills, not by a busy machine
STAGE_LIMIT_S = 1_200.0  # without a kill's excuse: a stage that takes longer hangs
MOST_ERRORS = 5  # of a stage in a row
RAYS_OWN = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")  # of each node
LOOK_S = 0.3  # between two looks for what may be killed


class Soak:
    """One run.

    Args:
        output: a new directory.
        minutes: after which no round begins and nothing is killed any more.
        every_s: mean time between kills.
    """

    def __init__(self, output: Path, minutes: float, every_s: float, seed: int) -> None:
        self._output, self._rng, self._every_s = output, random.Random(seed), every_s
        output.mkdir(parents=True)
        self._end = time.monotonic() + 60 * minutes
        os.environ |= PATIENT
        self._nodes = Nodes()
        self._killer = Killer(self._nodes, [self._nodes.add() for _ in range(NODES)], self._rng)
        self._next = time.monotonic() + every_s
        self._wrong: list[str] = []
        self._errors: list[str] = []
        self._memory: list[dict[str, float]] = []
        self._left: list[dict[str, int]] = []

    def run(self) -> dict[str, Any]:
        """Rounds until the time is over; returns the report."""
        judge, number, begun = self._output / "first", 0, time.monotonic()
        checkpoint.save(guided_model(), judge, provenance={})
        try:
            last = None
            while last is None or time.monotonic() < self._end:
                number += 1
                last = Round(self._output / f"round-{number:03d}", judge, seed=number)
                for stage, command in last.commands().items():
                    self._through(f"round {number}, {stage}", stage, command)
                self._wrong += (wrong := last.wrong())
                self._measure()
                judge = last.model
                for fault in wrong:
                    self._tell(fault)
                self._tell(f"round {number}: {len(self._wrong)} faults; kills {dict(self._killer.kills)}")
            self._in_peace(last)
        finally:
            self._nodes.stop()
        return {
            "minutes": round((time.monotonic() - begun) / 60, 1),
            "rounds": number,
            "kills": {kind: self._killer.kills[kind] for kind in KINDS},
            "faults": self._wrong,
            "commands that ended with an error": self._errors,
            "memory after each round": self._memory,
            "Ray's actors left after each round": self._left,
        }

    def _through(self, name: str, stage: str, command: list[str]) -> None:
        """Runs a stage to its end, however often its driver dies."""
        log, errors, limit = self._output / "driver.log", 0, time.monotonic() + STAGE_LIMIT_S
        while True:
            driver, killed = self._start(command, log), False
            while driver.poll() is None:
                time.sleep(LOOK_S)
                if time.monotonic() > limit:
                    driver.kill()
                    raise RuntimeError(f"{name}: not done after {STAGE_LIMIT_S:.0f} s")
                due_s = time.monotonic() - self._next
                if due_s > 0 and time.monotonic() < self._end and (kind := self._killer.kill(stage, driver, due_s)):
                    self._next = time.monotonic() + self._rng.expovariate(1 / self._every_s)
                    self._tell(f"{name}: killed a {kind}")
                    killed |= kind == DRIVER
            if driver.returncode == 0:
                return
            if not killed:
                errors += 1
                self._note(name, driver.returncode, log.read_text())
                if errors == MOST_ERRORS:
                    raise RuntimeError(f"{name}: {errors} errors; see {log}")

    def _note(self, name: str, code: int, log: str) -> None:
        """An error of one line is a clear refusal; anything else is a fault."""
        lines = [line for line in log.splitlines() if line.startswith("error: ")]
        self._errors.append(f"{name}: exit {code}: {lines[-1] if lines else log[-300:]}")
        if code != 1 or not lines or "Traceback" in log:
            self._wrong.append(f"{name}: exit {code} without a clear error")
            (self._output / f"fault-{len(self._wrong):03d}.log").write_text(log)
        self._tell(self._errors[-1])

    def _start(self, command: list[str], log: Path) -> subprocess.Popen[str]:
        with log.open("w") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "genie_ray", *command, "--address", self._nodes.address],
                env=os.environ | ENVIRONMENT,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def _measure(self) -> None:
        """Memory of what lives through the whole run, and what a round left behind."""
        ours = psutil.Process().children(recursive=True)
        memory = {"gcs_mb": 0.0}
        for process in ours:
            try:
                if "gcs_server" in " ".join(process.cmdline()):
                    memory["gcs_mb"] = process.memory_info().rss / 1e6
            except psutil.NoSuchProcess:
                continue
        names = [command_of(process) for process in actors(self._killer.raylets)]
        self._left.append(dict(Counter(name for name in names if name and name not in RAYS_OWN)))
        memory["own_mb"] = psutil.Process().memory_info().rss / 1e6
        memory["shared_mb"] = psutil.disk_usage("/dev/shm").used / 1e6
        self._memory.append({name: round(value, 1) for name, value in memory.items()})

    def _in_peace(self, last: Round) -> None:
        """Repeats the last round's collection and training without a kill, and compares."""
        for stage, command, ours, theirs in (
            ("collect", last.collecting(self._output / "played"), last.played, self._output / "played"),
            ("train", last.training(self._output / "finetuned"), last.model, self._output / "finetuned" / "last"),
        ):
            self._through(f"in peace, {stage}", stage, command)
            pattern = "game=*/*.parquet" if stage == "collect" else "*.safetensors"
            names = sorted(str(path.relative_to(ours)) for path in ours.glob(pattern))
            there = sorted(str(path.relative_to(theirs)) for path in theirs.glob(pattern))
            same, other, missing = filecmp.cmpfiles(ours, theirs, names, shallow=False)
            if names != there or other or missing or not same:
                self._wrong.append(f"{stage}: {len(other)} of {len(names)} files differ from those made in peace")

    def _tell(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new directory")
    parser.add_argument("--minutes", type=float, default=120, help="after which no round begins")
    parser.add_argument("--every", type=float, default=20, help="mean seconds between kills")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    report = Soak(arguments.out.resolve(), arguments.minutes, arguments.every, arguments.seed).run()
    (arguments.out / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False))
    print(json.dumps(report, indent=2, ensure_ascii=False))
    sys.exit(bool(report["faults"]))


if __name__ == "__main__":
    main()
