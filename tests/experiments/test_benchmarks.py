"""The benchmarks run and count what they say; speeds are not tested."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from genie_ray.collecting.collection import collect
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.plan import Policy
from genie_ray.envs.config import EnvConfig

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.mark.long
def test_the_world_model_is_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    # In fp32, as not every CPU multiplies bf16: there a large product takes minutes.
    arguments = ["--size", "small", "--dtype", "fp32", "--runs", "1", "--no-uncached", "--json", str(figures)]
    subprocess.run([sys.executable, str(BENCHMARKS / "world_model.py"), *arguments], check=True, capture_output=True)
    size = json.loads(figures.read_text())["sizes"]["small"]
    cases = {case["name"]: case for case in size["cases"]}
    assert all(0 < case["share"] < 1 for case in cases.values())
    step, forward = (cases[f"dynamics: {name}, 1 × 16 frames"]["flops"] for name in ("training step", "forward"))
    assert 2 < step / forward < 6  # a backward pass is about two forward passes
    assert cases["reward query, 64 windows"]["flops"] == pytest.approx(
        8 * cases["reward query, 8 windows"]["flops"], rel=0.01
    )


def test_a_reward_query_is_measured(tmp_path: Path) -> None:
    """The smoke of the benchmark above: its parts are alike."""
    figures = tmp_path / "figures.json"
    arguments = ["--size", "small", "--dtype", "fp32", "--runs", "1", "--no-uncached", "--only", "reward query"]
    command = [sys.executable, str(BENCHMARKS / "world_model.py"), *arguments, "--json", str(figures)]
    subprocess.run(command, check=True, capture_output=True)
    eight, many = json.loads(figures.read_text())["sizes"]["small"]["cases"]
    assert many["flops"] == pytest.approx(8 * eight["flops"], rel=0.01)


def test_the_page_of_performance_is_measured_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n")
    command = [sys.executable, str(BENCHMARKS / "performance.py"), "--smoke", "--page"]
    subprocess.run([*command, str(page)], check=True, capture_output=True)
    lines = page.read_text().splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "after"
    assert "old" not in lines
    names = ["training step", "reward query", "rollout"]
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("| ") and line.split("|")[1].strip() in names]
    assert [row[0].strip() for row in rows] == names * 2
    for _, products, moved, rest in rows[:3]:
        assert 0 < int(products.strip(" %")) < 100
        assert int(moved.strip(" %")) > 0
        assert abs(sum(int(share.strip(" %")) for share in (products, moved, rest)) - 100) <= 1
    page.write_text("no marks")
    refused = subprocess.run([*command, str(page)], capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "must hold the lines" in refused.stderr


@pytest.mark.slow
def test_the_loader_is_measured_on_real_play(roms: list[str], ray_session: None, tmp_path: Path) -> None:
    data, figures = tmp_path / "data", tmp_path / "figures.json"
    collect(data, Policy(name="random"), roms[:1], 400, CollectionConfig(steps_per_shard=50), EnvConfig())
    arguments = ["--data", str(data), "--turns", "1", "--windows", "160", "--stride", "1", "--json", str(figures)]
    subprocess.run([sys.executable, str(BENCHMARKS / "loader.py"), *arguments], check=True, capture_output=True)
    document = json.loads(figures.read_text())
    assert document["dataset"]["frames"] == 408  # eight shards of one episode
    assert document["memory"][0]["frames"] == 51
    rates = {case["name"]: case["windows_per_second"] for case in document["cases"]}
    assert list(rates) == [
        "bare pyarrow",
        "loader, stride 1, buffer 512",
        "loader, stride 1, buffer 2048",
        "folders of JPEGs",
    ]
    assert min(rates.values()) > 0


@pytest.mark.slow
def test_collection_is_measured(roms: list[str], tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["--game", "Kangaroo-Atari2600", "--runs", "1", "--steps", "300", "--json", str(figures)]
    subprocess.run([sys.executable, str(BENCHMARKS / "collection.py"), *arguments], check=True, capture_output=True)
    measured = json.loads(figures.read_text())
    assert set(measured["rates"]) == {"bare emulator", "environment", "collection"}
    assert all(rate > 0 for rates in measured["rates"].values() for rate in rates)
    assert 10 < measured["bytes_per_frame"] < 64 * 64 * 3


@pytest.mark.long
def test_the_reward_service_is_measured(roms: list[str], tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["--callers", "1", "--outstanding", "1", "--turns", "1", "--seconds", "0.3", "--game", roms[0]]
    subprocess.run(
        [sys.executable, str(BENCHMARKS / "reward_service.py"), *arguments, "--json", str(figures)],
        check=True,
        capture_output=True,
    )
    measured = json.loads(figures.read_text())
    assert measured["rates"]["bare_windows_per_second"] > 0
    assert measured["rates"]["service"][0]["windows_per_second"] > 0
    assert measured["play"]["steps_per_second_without_rewards"] > 0
    assert measured["play"]["steps_per_second"] > 0
    # Of eight episodes' first 25 steps, the first three have no window; later steps may still be in flight.
    assert measured["play"]["windows_judged"] >= 8 * 22


@pytest.mark.long
def test_scaling_is_measured(roms: list[str], tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["--smoke", "--json", str(figures)]
    subprocess.run([sys.executable, str(BENCHMARKS / "scaling.py"), *arguments], check=True, capture_output=True)
    measured = json.loads(figures.read_text())
    assert set(measured["share_of_linear"]) == {"1", "2", "4"}
    assert all(shards > 0 and cpu > 0 for cpu, shards, _ in measured["rows"])


@pytest.mark.long
def test_scaling_of_rewards_and_training_is_measured(roms: list[str], tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["--smoke", "--json", str(figures)]
    subprocess.run([sys.executable, str(BENCHMARKS / "scaling_stages.py"), *arguments], check=True, capture_output=True)
    measured = json.loads(figures.read_text())
    for number, rate in measured["windows_per_second"].items():
        most = int(number) * 120.0 * measured["replicas_busy"][number]  # throttled
        assert 0 < rate <= 1.001 * most <= 1.002 * int(number) * 120.0
    assert measured["iteration_seconds"]["1"] >= 4 * 0.4
    assert measured["iteration_seconds"]["4"] >= 0.4
    assert (
        set(measured["share_of_linear"]["rewards"]) == set(measured["share_of_linear"]["training"]) == {"1", "2", "4"}
    )


@pytest.mark.long
def test_two_checkouts_are_compared(roms: list[str], tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["--against", str(BENCHMARKS.parents[1]), "--game", roms[0], "--turns", "1", "--json", str(figures)]
    sizes = ["--iterations", "8", "--epochs", "2", "--steps", "400"]
    subprocess.run([sys.executable, str(BENCHMARKS / "checkouts.py"), *arguments, *sizes], check=True)
    measured = json.loads(figures.read_text())
    assert len(measured) == 2
    assert all(case["ratio"] == case["ours"][0] / case["other"][0] > 0 for case in measured.values())
