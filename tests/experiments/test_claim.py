"""The claim: its arithmetic on scores made by hand, and a tiny one that resumes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.claim.table import (
    compared,
    differences,
    finding,
    measures,
    play_table,
    score_table,
    seed_interval,
    verdict,
)
from genie_ray.playing.depth import Outcome, depth, outcome
from genie_ray.replay.dataset import count_episodes, index_episodes
from genie_ray.replay.metadata import DatasetMetadata
from genie_ray.replay.schema import Episode, episode_id
from genie_ray.replay.writer import write_metadata, write_shard

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "experiments" / "claim" / "config.yaml"
GAME = "Kangaroo-Atari2600-v0"
HELD, OURS = "random, held", "ours"


def arm(psnr: float, delta: float, cells: int = 100) -> dict[str, Any]:
    scores = {"PSNR t=10": psnr, "PSNR": psnr + 2, "ΔPSNR": delta, "NLL gap": None}
    none = dict.fromkeys(scores)
    return {"all": scores, "unreached": none, "played_by": "chance", "cells": cells, "places": None, "steps": 200}


def row(seed: int, ours: dict[str, Any], held: dict[str, Any], *, deep: bool = True) -> dict[str, Any]:
    depth = {"deep": deep}
    return {"game": GAME, "seed": seed, "arms": {HELD: held, OURS: ours}, "references": {}, "depth": depth}


def cells_of(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()]


def test_seeds_are_compared_in_pairs() -> None:
    rows = [row(1, arm(21.0, 0.5), arm(20.0, 0.25)), row(2, arm(23.0, 0.25), arm(24.0, 0.5))]
    rows.append(row(3, arm(26.0, 1.0), arm(22.0, 0.75)))
    head, _, held, ours = cells_of(score_table(rows, [HELD, OURS], HELD, "all"))
    assert head == ["play fine-tuned on", "PSNR t=10", "PSNR", "ΔPSNR", "NLL gap"]
    assert held == [HELD, "22.00", "24.00", "+0.50", ""]
    # Differences +1, −1 and +4. The lowest mean of three draws is −1, in 1 of 27; the highest +4, in 1 of 27.
    assert ours[1] == "23.33 (+1.00, -1.00, +4.00; above in 2 of 3; [-1.00, +4.00])"
    assert ours[3].startswith("+0.58 (+0.25, -0.25, +0.25; above in 2 of 3; [-0.25")
    assert ours[4] == ""
    assert cells_of(score_table(rows, [OURS], HELD, "unreached"))[2] == [OURS, "", "", "", ""]


def test_counts_are_compared_by_ratio() -> None:
    rows = [row(1, arm(20, 0, 300), arm(20, 0, 100)), row(2, arm(20, 0, 100), arm(20, 0, 200))]
    head, _, held, ours = cells_of(play_table(rows, [HELD, OURS], HELD))
    assert head == ["play", "played by", "steps", "cells", "places", "levels"]
    assert held == [HELD, "chance", "200", "150", "", ""]
    assert ours == [OURS, "chance", "200", "200 (3.00, 0.50; above in 1 of 2)", "", ""]


def test_an_interval_needs_three_seeds() -> None:
    assert seed_interval([1.0, 2.0]) is None
    assert seed_interval([1.0, 1.0, 1.0]) == [1.0, 1.0]
    assert seed_interval([0.0, 0.0, 3.0]) == [0.0, 3.0]  # all three draws are the 3 in 1 of 27 samples: 3.7 %
    assert compared("2", {}, 1, sign="+", even=0.0) == "2"


def test_only_seeds_that_both_have_are_compared() -> None:
    assert differences({1: 2.0, 2: None, 3: 5.0}, {1: 1.5, 2: 1.0}) == {1: 0.5}


@pytest.mark.parametrize(
    ("gains", "deltas", "expected"),
    [
        ([1.0] * 5, [0.5] * 5, "more"),
        ([1.0] * 5, [-0.5] * 5, "even"),
        ([1.0, 1.0, 1.0, 1.0, -9.0], [0.5] * 5, "even"),
        ([-1.0] * 5, [-0.5] * 5, "less"),
        ([1.0] * 4, [0.5] * 4, "few"),
    ],
)
def test_the_verdict_claims_no_more_than_both_measures_show(
    gains: list[float], deltas: list[float], expected: str
) -> None:
    pairs = enumerate(zip(gains, deltas, strict=True), 1)
    rows = [row(seed, arm(20 + gain, 1 + delta), arm(20, 1)) for seed, (gain, delta) in pairs]
    assert finding(rows, OURS, HELD) == expected
    sentence = verdict({GAME: rows}, OURS, HELD)
    assert ("`ours` taught the world model more than `random, held` on Kangaroo" in sentence) == (expected == "more")
    if expected != "few":
        assert f"PSNR t=10 {np.mean(gains):+.2f} dB [" in sentence
    assert ("It was not shown" in sentence) == (expected != "more")
    assert "not shown to be better than random play" not in sentence


def test_a_test_set_by_shallow_agents_is_told() -> None:
    rows = [row(seed, arm(21, 1.5), arm(20, 1), deep=seed != 2) for seed in range(1, 6)]
    assert f"not shown to be better than random play: {GAME} (seed 2)" in verdict({GAME: rows}, OURS, HELD)


def test_measures_are_those_of_the_tenth_frame_and_the_horizon() -> None:
    scores = {"psnr": 25.0, "delta_psnr": 0.5, "curves": {"psnr": [float(frame) for frame in range(1, 13)]}}
    assert measures(scores) == {"PSNR t=10": 10.0, "PSNR": 25.0, "ΔPSNR": 0.5, "NLL gap": None}
    assert set(measures(None).values()) == {None}


def test_agents_are_deep_if_the_interval_of_their_gain_is_above_zero() -> None:
    found = depth(Outcome([5.0, 5.0], [True, False]), Outcome([1.0, 2.0], []))
    # Means of two draws: 5, and 1, 1.5 or 2.
    assert (found["gain_interval"], found["deep"], found["finished"]) == ([3.0, 4.0], True, 0.5)
    assert (found["return"], found["return_by_chance"], found["finished_by_chance"]) == (5.0, 1.5, None)
    assert depth(Outcome([1.0, 2.0], []), Outcome([1.0, 2.0], []))["deep"] is False
    assert depth(Outcome([9.0], []), Outcome([1.0, 2.0], []))["deep"] is None


@pytest.fixture
def play(tmp_path: Path) -> Path:
    """Two episodes, of 4 and 2 steps; each grey value of a frame is a cell, each x a place."""
    shades, places = ([0, 40, 80, 80, 120], [200, 0, 160]), ([1, 1, 20, 20, 40], [1, 60, 80])
    episodes = [
        Episode(
            episode_id=episode_id(GAME, "random", 0, index),
            game=GAME,
            frames=np.array(values, np.uint8)[:, None, None, None] + np.zeros((1, 16, 16, 3), np.uint8),
            actions=np.zeros(len(values) - 1, np.int8),
            action_logp=None,
            reward_env=np.full(len(values) - 1, 2.0, np.float32),
            reward_uncertainty=None,
            terminated=index == 0,
            truncated=index == 1,
            infos=[{"x": x, "level_complete": 1} for x in xs],
        )
        for index, (values, xs) in enumerate(zip(shades, places, strict=True))
    ]
    write_shard(tmp_path, GAME, "00000", episodes)
    counts, names = count_episodes(index_episodes(tmp_path)), ("NOOP", "RIGHT")
    write_metadata(tmp_path, DatasetMetadata(action_names=names, frame_shape=(16, 16, 3), policy="a", counts=counts))
    return tmp_path


def test_only_whole_episodes_have_an_outcome(play: Path) -> None:
    assert outcome(play, 3) == Outcome([8.0], [True])  # the other was cut short
    assert outcome(play, 2) == Outcome([8.0, 4.0], [True, True])


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "experiments.claim.run", *arguments]


def tiny(out: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    arguments = command(str(CONFIG), "--tiny", "--out", str(out))
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, cwd=ROOT)


def check_results(out: Path, printed: str) -> None:
    row = json.loads((out / GAME / "seed-1" / "result.json").read_text())
    assert list(row["arms"]) == [HELD, OURS, "ours, ranked", "oracle"]
    for name, one in row["arms"].items():
        assert 240 < one["steps"] <= 256 if name.startswith(OURS) else one["steps"] == 256
        assert one["cells"] > 1
        assert one["all"]["PSNR t=10"] > 10
        assert len(one["curves"]["all"]) == 10
    assert row["arms"][OURS]["played_by"] == "explorer in training"
    assert row["depth"]["deep"] in (True, False, None)
    assert 0 <= row["unreached_windows"] <= row["windows"]
    assert (out / "results.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "results.md").read_text()
    assert "with fewer than 5 seeds nothing can be said of Kangaroo" in text
    assert text in printed


@pytest.mark.long
def test_a_tiny_one_runs_through(roms: list[str], tmp_path: Path) -> None:
    done = tiny(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    check_results(tmp_path, done.stdout)


@pytest.mark.long
def test_a_tiny_one_goes_on_where_it_was_killed(roms: list[str], tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    base, result = tmp_path / GAME / "seed-1" / "base", tmp_path / GAME / "seed-1" / "result.json"
    with (tmp_path / "log").open("ab") as log:
        process = subprocess.Popen(
            command(str(CONFIG), "--tiny", "--out", str(tmp_path)), stdout=log, stderr=log, env=environment, cwd=ROOT
        )
        while not (base / "tokenizer" / "last" / "config.json").exists():
            assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    there = (base / "tokenizer" / "last" / "config.json").stat().st_mtime_ns
    done = tiny(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (base / "tokenizer" / "last" / "config.json").stat().st_mtime_ns == there
    check_results(tmp_path, done.stdout)
    written = result.stat().st_mtime_ns
    again = tiny(tmp_path)
    assert (again.returncode, result.stat().st_mtime_ns) == (0, written), again.stderr[-3000:]
