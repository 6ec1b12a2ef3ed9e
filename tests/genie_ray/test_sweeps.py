"""Sweeps: every point is planned before anything starts, and what a killed sweep had finished is not done again."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from genie_ray.config import RunConfig
from genie_ray.sweep_report import TrialResult, effect_rows, rank, read_results, table_rows, write_report
from genie_ray.sweeps import SweepConfig, Trial, load_sweep, plan_trials, run_sweep

EPSILON = "exploration.network.epsilon_start"
TOP_K = "reward.top_k_fraction"
PRESET = Path(__file__).parents[2] / "experiments" / "sweeps" / "topk_epsilon.yaml"
DEADLINE_S = 600


def sweep(parameters: dict[str, Any], **settings: Any) -> SweepConfig:
    return SweepConfig(world_model="somewhere", parameters=parameters, **settings)


def test_lists_are_crossed_and_ranges_drawn_anew_for_each_sample() -> None:
    config = sweep({TOP_K: [0.1, 1.0], EPSILON: {"low": 0.1, "high": 0.4}, "seed": [1, 2]}, samples=3)
    trials = plan_trials(config)
    assert [trial.number for trial in trials] == list(range(12))
    assert [trial.run.reward.top_k_fraction for trial in trials] == 6 * [0.1] + 6 * [1.0]
    assert [trial.run.seed for trial in trials] == 2 * [1, 1, 1, 2, 2, 2]
    drawn = [trial.run.exploration.network.epsilon_start for trial in trials]
    assert len(set(drawn)) == 12
    assert all(0.1 <= value <= 0.4 for value in drawn)
    assert trials == plan_trials(config)
    assert drawn != [trial.run.exploration.network.epsilon_start for trial in plan_trials(sweep_with_seed(config, 1))]


def sweep_with_seed(config: SweepConfig, seed: int) -> SweepConfig:
    return sweep(config.parameters, samples=config.samples, seed=seed)


def test_whole_numbers_are_drawn_with_both_ends_and_logarithms_evenly() -> None:
    key = "exploration.learning.updates_per_epoch"
    drawn = {trial.parameters[key] for trial in plan_trials(sweep({key: {"low": 3, "high": 5}}, samples=50))}
    assert drawn == {3, 4, 5}
    key = "exploration.learning.learning_rate"
    config = sweep({key: {"low": 1e-5, "high": 1e-1, "log": True}}, samples=400)
    below = sum(trial.parameters[key] < 1e-3 for trial in plan_trials(config))
    assert 150 < below < 250  # half of 400, within five standard deviations


def test_a_value_may_change_several_settings_together() -> None:
    config = sweep({"exploration.network": [{"epsilon_start": 0.5, "epsilon_end": 0.2}, {"lstm_size": 8}]})
    first, second = (trial.run.exploration.network for trial in plan_trials(config))
    assert (first.epsilon_start, first.epsilon_end, first.lstm_size) == (0.5, 0.2, 512)
    assert (second.epsilon_start, second.epsilon_end, second.lstm_size) == (0.1, 0.01, 8)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"reward.topk_fraction": [0.5]}, "trial 0: unknown key 'reward.topk_fraction'; nearest: 'reward.top_k_fract"),
        ({TOP_K: [0.5, 0.0]}, "trial 1: reward.top_k_fraction is 0.0; allowed: above 0"),
        ({TOP_K: {"low": 0.5, "high": 1.5}}, "reward.top_k_fraction is 1"),
        ({EPSILON: [0.001]}, "epsilon_end is 0.01; allowed: at most epsilon_start"),
        ({"reward.kind": ["entropy", "fear"]}, "trial 1: reward.kind = 'fear'"),
    ],
)
def test_trials_that_cannot_work_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_trials(sweep(parameters, samples=20 if isinstance(next(iter(parameters.values())), dict) else 1))


@pytest.mark.parametrize(
    ("parameters", "settings", "message"),
    [
        ({}, {}, "parameters is empty"),
        ({TOP_K: []}, {}, "reward.top_k_fraction has no values"),
        ({TOP_K: 0.5}, {}, "allowed: a list, or a range"),
        ({TOP_K: {"low": 0.5, "high": 0.1}}, {}, "ranges from 0.5 to 0.1"),
        ({TOP_K: {"low": 0, "high": 1, "log": True}}, {}, "allowed with log: above 0"),
        ({"tokenizer.dim": [64]}, {}, "tokenizer.dim has no say in a trial"),
        ({TOP_K: [1.0]}, {"samples": 0}, "samples is 0"),
        ({TOP_K: [1.0]}, {"reduction_factor": 1.0}, "reduction_factor is 1.0"),
    ],
)
def test_config_is_checked(parameters: dict[str, Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sweep(parameters, **settings)


def test_trials_of_different_length_are_refused(roms: list[str], world_model: Path, tmp_path: Path) -> None:
    config = SweepConfig(world_model=str(world_model), parameters={"exploration.epochs": [100, 200]})
    with pytest.raises(ValueError, match="different numbers of steps"):
        run_sweep(config, tmp_path / "out")
    config = SweepConfig(world_model=str(world_model), parameters={TOP_K: [1.0]}, grace_epochs=600)
    with pytest.raises(ValueError, match="grace_epochs is 600; allowed: less than a trial's 600 epochs"):
        run_sweep(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def result(number: int, top_k: float, cells: int, psnr: float | None) -> TrialResult:
    figures = {"coverage": cells, "psnr": psnr, "delta_psnr": 0.5} if psnr is not None else None
    trial = Trial(number=number, parameters={TOP_K: top_k}, run=RunConfig())
    return TrialResult(trial=trial, progress=[float(cells)], figures=figures)


RESULTS = [result(0, 0.1, 300, 20.0), result(1, 0.1, 900, None), result(2, 1.0, 500, 26.0), result(3, 1.0, 100, 18.0)]


def test_ranking_goes_by_the_objective_and_leaves_the_unfinished_last() -> None:
    assert [entry.trial.number for entry in rank(RESULTS, "coverage")] == [2, 0, 3, 1]
    assert [entry.trial.number for entry in rank(RESULTS, "psnr")] == [3, 0, 2, 1]


def test_effects_are_means_over_the_finished_trials() -> None:
    low, high = effect_rows(sweep({TOP_K: [0.1, 1.0]}), RESULTS)
    assert (low["value"], low["trials"], low["measured"], low["coverage mean"]) == ("0.1", 2, 1, "300")
    assert [high[f"coverage {name}"] for name in ("min", "mean", "max")] == ["100", "300", "500"]
    assert high["psnr mean"] == "22.00"
    rows = table_rows(RESULTS, {"coverage": 200, "psnr": 25.0, "delta_psnr": 0.0})
    assert [row["times random"] for row in rows] == ["1.50", "", "2.50", "0.50", "1.00"]


def test_the_preset_is_a_valid_sweep_of_nine() -> None:
    trials = plan_trials(load_sweep(PRESET))
    assert len({(t.run.reward.top_k_fraction, t.run.exploration.network.epsilon_start) for t in trials}) == 9


TINY = {
    "early_stopping": False,
    "parameters": {TOP_K: [0.25, 1.0], EPSILON: [0.1, 0.5]},
    "run": {
        "games": ["Kangaroo-Atari2600-v0"],
        "env": {"max_episode_steps": 60},
        "collection": {"finetune_steps": 60, "steps_per_shard": 60},
        "exploration": {
            "epochs": 2,
            "checkpoint_every": 1,
            "network": {"channels": [4, 4, 8, 8], "lstm_size": 16},
            "learning": {
                "num_envs": 2,
                "steps_per_epoch": 25,
                "updates_per_epoch": 1,
                "sequences_per_update": 2,
                "replay_capacity": 1000,
                "evaluation_every": 5,
            },
        },
        "evaluation": {"windows_per_game": 2, "decoding": {"steps": 2}},
    },
}


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(roms: list[str], world_model: Path, tmp_path: Path) -> None:
    file, out, log = tmp_path / "tiny.yaml", tmp_path / "out", tmp_path / "log"
    file.write_text(yaml.safe_dump({"world_model": str(world_model), **TINY}))

    def start() -> subprocess.Popen[bytes]:
        environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        command = [sys.executable, "-m", "genie_ray", "sweep", str(file), "--out", str(out)]
        with log.open("ab") as stream:
            return subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)

    process, end = start(), time.monotonic() + DEADLINE_S
    while not (finished := list(out.glob("trials/*/result.json"))):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for file in finished for path in file.parent.rglob("*") if path.is_file()}
    assert len(finished) < 4
    assert start().wait(timeout=DEADLINE_S) == 0, log.read_text()[-3000:]

    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    config = load_sweep(file)
    results = read_results(out, plan_trials(config))
    assert all(entry.finished and len(entry.progress) == 2 for entry in results)
    with (out / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["trial"] for row in rows[4:]] == ["random play"]
    coverage = [int(row["cells"]) for row in rows[:4]]
    assert coverage == sorted(coverage, reverse=True)
    measured = {json.loads(path.read_text())["coverage"] for path in out.glob("trials/*/result.json")}
    assert measured == set(coverage)
    for name in ("effects.png", "trials.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    write_report(config, plan_trials(config), out)  # of what is there, without Ray
    assert start().wait(timeout=DEADLINE_S) == 0  # nothing is left to do
    with pytest.raises(ValueError, match="holds another sweep \\(samples: 1 → 2\\)"):
        run_sweep(load_sweep(file, ["samples=2"]), out)
