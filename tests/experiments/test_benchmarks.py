"""The benchmarks run and count what they say; how fast anything is, is theirs to tell."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.mark.slow
def test_the_world_model_is_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["--size", "small", "--runs", "1", "--no-uncached", "--json", str(figures)]
    subprocess.run([sys.executable, str(BENCHMARKS / "world_model.py"), *arguments], check=True, capture_output=True)
    size = json.loads(figures.read_text())["sizes"]["small"]
    cases = {case["name"]: case for case in size["cases"]}
    assert all(0 < case["share"] < 1 for case in cases.values())
    step, forward = (cases[f"dynamics: {name}, 1 × 16 frames"]["flops"] for name in ("training step", "forward"))
    assert (
        2 < step / forward < 6
    )  # a backward pass is about two forward passes; a CPU's attention is counted in one only
    assert cases["reward query, 64 windows"]["flops"] == pytest.approx(
        8 * cases["reward query, 8 windows"]["flops"], rel=0.01
    )


@pytest.mark.slow
def test_collection_is_measured(roms: list[str], tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["--game", "Kangaroo-Atari2600", "--runs", "1", "--steps", "300", "--json", str(figures)]
    subprocess.run([sys.executable, str(BENCHMARKS / "collection.py"), *arguments], check=True, capture_output=True)
    measured = json.loads(figures.read_text())
    assert set(measured["rates"]) == {"bare emulator", "environment", "collection"}
    assert all(rate > 0 for rates in measured["rates"].values() for rate in rates)
    assert 10 < measured["bytes_per_frame"] < 64 * 64 * 3
