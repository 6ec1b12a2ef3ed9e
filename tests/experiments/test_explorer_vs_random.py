"""Explorers against random play: explorers differ only in what their names say; a small comparison runs through."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from genie_ray.base.settings import differences, to_dict
from genie_ray.replay.dataset import ReplayDataset

FOLDER = Path(__file__).parents[2] / "experiments" / "explorer_vs_random"
TIMEOUT_S = 600


def load(script: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"explorer_vs_random_{script}", FOLDER / f"{script}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def experiment() -> ModuleType:
    return load("run")


ALLOWED = {
    None: {"reward.kind"},
    "settling": {
        "games",
        "reward.kind",
        "reward.novelty",
        "exploration.rounds.every",
        "exploration.learning.old_rewards",
        "exploration.learning.entropy_weight",
        "exploration.learning.prior_weight",
    },
    "novelty": {
        "games",
        "reward.novelty",
        "reward.novelty_tolerance",
        "exploration.learning.updates_per_epoch",
        "exploration.learning.learning_rate",
        "exploration.learning.entropy_weight",
        "exploration.learning.replay_capacity",
    },
}


@pytest.mark.parametrize("variant", ALLOWED)
def test_explorers_differ_in_what_their_name_says(experiment: ModuleType, variant: str | None) -> None:
    configs = experiment.read_configs(FOLDER / "config.yaml", variant)
    assert len(configs) >= 3
    for seed, named in configs.items():
        assert named["random"].seed == seed
        assert len(named["random"].games) >= 3
        for name, config in named.items():
            changed = {line.partition(":")[0] for line in differences(to_dict(named["random"]), to_dict(config))}
            assert changed <= ALLOWED[variant], name


def test_a_variant_judges_by_the_same_world_model(experiment: ModuleType) -> None:
    base, settling = (
        experiment.read_configs(FOLDER / "config.yaml", variant)[1]["random"] for variant in (None, "settling")
    )
    changed = differences(to_dict(base), to_dict(settling))
    assert changed
    assert all(line.startswith("exploration.") for line in changed)


def test_an_unknown_variant_is_refused(experiment: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"variant is 'none'; allowed: one of \['novelty', 'settling', 'tiny'\]"):
        experiment.read_configs(FOLDER / "config.yaml", "none")


def test_games_that_no_world_model_learned_are_refused(experiment: ModuleType, tmp_path: Path) -> None:
    described = yaml.safe_load((FOLDER / "config.yaml").read_text())
    described["explorers"]["entropy"]["games"] = ["Pong-Atari2600-v0"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(ValueError, match=r"games of 'entropy' are \['Pong-Atari2600-v0'\]; allowed: some of"):
        experiment.read_configs(tmp_path / "config.yaml")


def row(explorer: str, seed: int, cells: int, psnr: float, seen: Mapping[int, int]) -> dict[str, object]:
    return {
        "explorer": explorer,
        "game": "Kangaroo",
        "seed": seed,
        "cells": cells,
        "psnr": psnr,
        "delta_psnr": 0.25,
        "delta_psnr_mean": 0.5,
        "copy_psnr": 30.0,
        "training": [{"env_steps": steps, "cells": cells} for steps, cells in seen.items()],
        "settled_epochs": 2.0,
        "breadth_kept": None if explorer == "random" else 0.5,
    }


def test_the_table_compares_within_a_seed(experiment: ModuleType) -> None:
    by_chance, seen = {100: 7, 200: 9, 300: 11}, {240: 15, 440: 35}  # after 300 steps: 11 and 21
    rows = [
        row("random", 1, 100, 30.0, by_chance),
        row("random", 2, 200, 32.0, by_chance),
        row("RF", 1, 300, 20.0, seen),
        row("RF", 2, 200, 24.0, {100: 7, 250: 15}),
    ]
    lines = experiment.table(rows).splitlines()
    # 300/100 and 200/200; sample standard deviations √2/2 times the difference of two.
    tail = "+0.25 ± 0.00 | +0.50 ± 0.00 | 30.00 ± 0.00"
    assert f"| RF | 2 | 250 ± 71 | 2.00 | 3.00, 1.00 | 22.00 ± 2.83 | {tail} | 1.91, 1.50 | 2 | 0.50 ± 0.00 |" in lines
    assert f"| random | 2 | 150 ± 71 | 1.00 | 1.00, 1.00 | 31.00 ± 1.41 | {tail} |  |  |  |" in lines


def test_breadth_kept_compares_the_last_epochs_with_the_widest(experiment: ModuleType) -> None:
    log = [{"cells_of_epoch_per_step": width} for width in (0.1, 0.1, 0.9, 0.8, 0.7, 0.1, 0.3, 0.2, 0.1)]
    assert experiment.breadth_kept(log) == pytest.approx(0.25)  # 0.2 / 0.8
    assert experiment.breadth_kept(log[:2]) == pytest.approx(1)
    assert experiment.breadth_kept([]) is None


def test_fixed_ways_of_playing_do_what_they_are_called() -> None:
    headroom = load("headroom")
    rng = np.random.default_rng(0)
    names = ["NOOP", "LEFT", "RIGHT", "UP", "DOWN"]
    for way in headroom.ways(names):
        actions = way.actions(20_000, len(names), rng)
        shares = np.bincount(actions, minlength=len(names)) / len(actions)
        expected = np.full(len(names), 0.2)
        if way.favourite is not None:
            assert names[way.favourite] in way.name
            expected[:], expected[way.favourite] = 0.125, 0.5
        np.testing.assert_allclose(shares, expected, atol=0.05)
        # A held action is followed by another one if it is released and the next draw differs.
        changes = np.count_nonzero(np.diff(actions)) / (len(actions) - 1)
        assert changes == pytest.approx((1 - np.square(expected).sum()) / way.held, abs=0.02)


@pytest.mark.long
def test_a_tiny_one_runs_through_and_is_not_repeated(roms: list[str], tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(FOLDER / "run.py"),
        str(FOLDER / "config.yaml"),
        "--variant",
        "tiny",
        "--out",
        str(tmp_path),
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}

    def run() -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]

    run()
    rows = json.loads((tmp_path / "tiny.json").read_text())
    assert [entry["explorer"] for entry in rows] == ["random", "RF"]
    for entry in rows:
        group = tmp_path / "seed-1" if entry["explorer"] == "random" else tmp_path / "seed-1" / "tiny"
        play = ReplayDataset(group / entry["explorer"] / entry["game"] / "play")
        assert sum(episode.length for episode in play.episodes) == 200
        assert entry["cells"] == entry["curve"]["cells"][-1]
    assert len(rows[1]["training"]) == 2
    assert (tmp_path / "tiny.png").read_bytes().startswith(b"\x89PNG")
    assert "| RF | 1 |" in (tmp_path / "tiny.md").read_text()
    results = {path: path.stat().st_mtime_ns for path in (tmp_path / "seed-1").rglob("result.json")}
    run()
    assert {path: path.stat().st_mtime_ns for path in results} == results
