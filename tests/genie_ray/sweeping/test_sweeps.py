"""Sweeps: every point is planned before anything starts, and what a killed sweep had finished is not repeated."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from genie_ray.base.metrics_log import read_metrics
from genie_ray.base.session import RayConfig
from genie_ray.base.settings import build
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.sweeping.config import SweepConfig, TrialConfig
from genie_ray.sweeping.plan import Trial, load_sweep, plan_trials, short_names
from genie_ray.sweeping.report import TrialResult, effect_rows, rank, read_results, table_rows
from genie_ray.sweeping.run import run_sweep
from genie_ray.sweeping.trials import CELLS, EPOCH, ContinuedASHA
from tests.genie_ray.sweeping.tiny_sweep import TINY

EPSILON = "exploration.network.epsilon_start"
TOP_K = "reward.top_k_fraction"
PRESET = Path(__file__).parents[3] / "experiments" / "sweeps" / "topk_epsilon.yaml"
DEADLINE_S = 300


def sweep(parameters: dict[str, Any], **settings: Any) -> SweepConfig:
    """Explorers by V-trace, whose settings most of these sweeps name."""
    run = settings.pop("run", TrialConfig())
    run = dataclasses.replace(run, exploration=dataclasses.replace(run.exploration, algorithm="vtrace"))
    return SweepConfig(world_model="somewhere", parameters=parameters, run=run, **settings)


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


def test_samples_have_seeds_of_their_own() -> None:
    config = sweep({TOP_K: [0.1, 1.0]}, samples=2, run=TrialConfig(seed=7))
    assert [trial.run.seed for trial in plan_trials(config)] == [7, 8, 7, 8]


def test_keys_whose_last_parts_are_the_same_are_named_in_full() -> None:
    keys = ["exploration.learning.learning_rate", "exploration.rounds.training.learning_rate", TOP_K]
    assert list(short_names(keys).values()) == [*keys[:2], "top_k_fraction"]


def test_whole_numbers_are_drawn_with_both_ends_and_logarithms_evenly() -> None:
    key = "exploration.learning.updates_per_epoch"
    drawn = {trial.parameters[key] for trial in plan_trials(sweep({key: {"low": 3, "high": 5}}, samples=50))}
    assert drawn == {3, 4, 5}
    key = "exploration.learning.learning_rate"
    config = sweep({key: {"low": 1e-5, "high": 1e-1, "log": True}}, samples=100)
    below = sum(trial.parameters[key] < 1e-3 for trial in plan_trials(config))
    assert 25 < below < 75  # half of 100, within five standard deviations


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
        ({"tokenizer.dim": [64]}, {}, "tokenizer.dim does not affect a trial"),
        ({TOP_K: [1.0]}, {"samples": 0}, "samples is 0"),
        ({TOP_K: [1.0]}, {"objective": "gain"}, "objective is 'gain', but there is no test play"),
        ({TOP_K: [1.0]}, {"reduction_factor": 1.0}, "reduction_factor is 1.0"),
        ({TOP_K: [1.0]}, {"run": TrialConfig(ray=RayConfig(learner_apart=True))}, "learner_apart is True; allowed"),
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
    long = build(TrialConfig, {"evaluation": {"predicted_frames": 20}})
    config = SweepConfig(world_model=str(world_model), parameters={TOP_K: [1.0]}, run=long)
    with pytest.raises(ValueError, match=r"run.evaluation.prime_frames \+ predicted_frames is 22: must be at most 16"):
        run_sweep(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Asha:
    """The scheduler of a sweep of four trials of five epochs; half of them pass each of the epochs 1, 2 and 4."""

    def __init__(self, progress: list[list[float]], stopped: set[int]) -> None:
        run = build(TrialConfig, {"exploration": {"epochs": 5}})
        config = sweep({TOP_K: [0.1, 0.2, 0.3, 0.4]}, run=run, grace_epochs=1, reduction_factor=2)
        results = [
            TrialResult(trial=trial, progress=seen, figures=None, stopped=trial.number in stopped)
            for trial, seen in zip(plan_trials(config), progress, strict=True)
        ]
        self._scheduler = ContinuedASHA(config, results)
        self._trials = [SimpleNamespace(trial_id=f"new-{number}", config={"trial": number}) for number in range(4)]
        for trial in self._trials:
            if trial.config["trial"] not in stopped:
                self._scheduler.on_trial_add(None, trial)

    def report(self, number: int, epoch: int, cells: float) -> str:
        return self._scheduler.on_trial_result(None, self._trials[number], {EPOCH: epoch, CELLS: cells})


@pytest.mark.parametrize("interrupted", [False, True])
def test_early_stopping_remembers_what_was_seen_before_an_interruption(interrupted: bool) -> None:
    asha = Asha([[], [], [], []], set())
    assert asha.report(0, 1, 10) == "CONTINUE"  # no other trial to compare with
    assert asha.report(1, 1, 20) == "CONTINUE"
    assert asha.report(2, 1, 14) == "STOP"  # the median of 10 and 20 is 15
    assert asha.report(0, 2, 30) == "CONTINUE"
    assert asha.report(1, 2, 25) == "STOP"
    if interrupted:
        asha = Asha([[10, 30], [20, 25], [14], []], {1, 2})
        assert asha.report(0, 2, 1) == "CONTINUE"  # repeated from an earlier state; it had passed this already
    assert asha.report(3, 1, 13) == "STOP"  # the median of 10, 20 and 14 is 14
    assert asha.report(3, 2, 27) == "STOP"  # of 30 and 25, it is 27.5
    assert asha.report(0, 3, 1) == "CONTINUE"  # not an epoch at which trials are stopped


def held(cells: int, psnr: float, places: int | None = None) -> dict[str, Any]:
    """What is measured of play if there is no test play."""
    return {"coverage": cells, "places": places, "psnr": psnr, "delta_psnr": 0.5, "delta_psnr_mean": 0.5}


def result(number: int, top_k: float, cells: int, psnr: float | None) -> TrialResult:
    figures = {**held(cells, psnr), "gain": cells / 1000} if psnr is not None else None
    trial = Trial(number=number, parameters={TOP_K: top_k}, run=TrialConfig())
    return TrialResult(trial=trial, progress=[cells / 2, float(cells)], figures=figures, stopped=psnr is None)


RESULTS = [result(0, 0.1, 300, 20.0), result(1, 0.1, 900, None), result(2, 1.0, 500, 26.0), result(3, 1.0, 100, 18.0)]


def test_ranking_goes_by_the_objective_and_leaves_the_unfinished_last() -> None:
    assert [entry.trial.number for entry in rank(RESULTS, "coverage")] == [2, 0, 3, 1]
    assert [entry.trial.number for entry in rank(RESULTS, "psnr")] == [3, 0, 2, 1]
    assert [entry.trial.number for entry in rank(RESULTS, "gain")] == [2, 0, 3, 1]


def test_effects_are_means_over_the_finished_trials() -> None:
    low, high = effect_rows(sweep({TOP_K: [0.1, 1.0]}, grace_epochs=1), RESULTS)
    assert (low["value"], low["trials"], low["measured"], low["coverage mean"]) == ("0.1", 2, 1, "300")
    assert low["all: cells at epoch 1"] == "300"  # of 150 and 450, also of the one that was stopped
    assert [high[f"coverage {name}"] for name in ("min", "mean", "max")] == ["100", "300", "500"]
    assert high["psnr mean"] == "22.00"
    assert [high[f"gain {name}"] for name in ("min", "mean", "max")] == ["0.10", "0.30", "0.50"]
    random = {"random": held(100, 26.0, 8) | {"gain": 0.0}, "held": held(200, 25.0, 9) | {"gain": 0.25}}
    rows = table_rows(RESULTS, random)
    assert [row["trial"] for row in rows] == [0, 1, 2, 3, "random", "random, held"]
    assert [row["times held"] for row in rows] == ["1.50", "", "2.50", "0.50", "0.50", "1.00"]
    assert [row["gain"] for row in rows[:4]] == ["+0.30", "", "+0.50", "+0.10"]
    assert (rows[-1]["gain"], rows[-1]["places"]) == ("+0.25", 9)
    assert [row["state"] for row in rows] == ["measured", "stopped early", *["measured"] * 4]


def test_values_that_look_alike_stay_apart() -> None:
    groups = effect_rows(sweep({TOP_K: [0.1, 0.2]}), [result(0, 0.9996, 3, 1.0), result(1, 0.99960001, 5, 1.0)])
    assert [(row["value"], row["trials"]) for row in groups] == [("0.9996", 1), ("0.9996", 1)]


def test_the_preset_is_a_valid_sweep_of_nine_with_three_seeds() -> None:
    trials = plan_trials(load_sweep(PRESET))
    points = [(trial.run.reward.top_k_fraction, trial.run.exploration.ppo) for trial in trials]
    assert (len(trials), [points.count(point) for point in points]) == (27, [3] * 27)
    assert {trial.run.seed for trial in trials} == {1, 2, 3}
    assert {ppo.epsilon_after(0) for _, ppo in points} == {0.01, 0.3, 0.5}
    assert {ppo.epsilon_after(trials[0].run.training_steps // 2) for _, ppo in points} == {0.01, 0.2}


@pytest.mark.long
def test_a_killed_sweep_goes_on_where_it_was(
    roms: list[str], world_model: Path, replay: ReplayDataset, tmp_path: Path
) -> None:
    file, out, log = tmp_path / "tiny.yaml", tmp_path / "out", tmp_path / "log"
    file.write_text(yaml.safe_dump({"world_model": str(world_model), "test": str(replay.root), **TINY}))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}

    def start(**more: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "genie_ray", "sweep", str(file), "--out", str(out)]
        with log.open("ab") as stream:
            return subprocess.Popen(command, stdout=stream, stderr=stream, env=environment | more)

    process, end = start(), time.monotonic() + DEADLINE_S
    while not (states := list(out.glob("trials/000/agents/*/state-000001"))):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    metrics = states[0].parent / "metrics.jsonl"
    first = read_metrics(metrics)[0]
    assert start().wait(timeout=DEADLINE_S) == 0, log.read_text()[-3000:]

    assert [line["iteration"] for line in read_metrics(metrics)] == [1, 2, 3]
    assert read_metrics(metrics)[0] == first
    config = load_sweep(file)
    broad, narrow = read_results(out, plan_trials(config))
    assert (broad.state, len(broad.progress)) == ("measured", 3)
    assert (narrow.state, len(narrow.progress)) == ("stopped early", 1)
    assert narrow.progress[0] < broad.progress[0]  # which was seen before the kill
    with (out / "table.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["trial"] for row in rows] == ["0", "1", "random", "random, held"]
    paths = (out / "trials" / "000", out / "random" / "random", out / "random" / "held")
    measured = [json.loads((path / "result.json").read_text()) for path in paths]
    cells = [str(figures["coverage"]) for figures in measured]
    assert [row["cells"] for row in rows] == [cells[0], "", *cells[1:]]
    gains = [f"{figures['gain']:+.2f}" for figures in measured]
    assert int(cells[0]) == broad.progress[-1]  # of all that was played
    assert [row["gain"] for row in rows] == [gains[0], "", *gains[1:]]
    for name in ("effects.png", "trials.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    nowhere = start(RAY_ADDRESS="127.0.0.1:1")
    assert nowhere.wait(timeout=DEADLINE_S) == 0, log.read_text()[-3000:]  # nothing is left to do, so no Ray is needed
    with pytest.raises(ValueError, match=r"holds a sweep with other settings \(samples: 1 → 2\)"):
        run_sweep(load_sweep(file, ["samples=2"]), out)
    kept = yaml.safe_load((out / "sweep.yaml").read_text())
    (out / "sweep.yaml").write_text(yaml.safe_dump(kept | {"world_model_sha256": "of weights that were there before"}))
    with pytest.raises(ValueError, match="world_model_sha256: "):
        run_sweep(config, out)
