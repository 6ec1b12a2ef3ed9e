"""The whole loop on real games: once undisturbed, and once killed again and again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from genie_ray.config import load_config
from genie_ray.loop import BASE, ON_EXPLORED, ON_RANDOM, run_loop, stages
from genie_ray.replay.coverage import cells
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.verify import verify
from world_model import checkpoint

SMOKE = Path(__file__).parents[1] / "experiments" / "smoke.yaml"
DATASETS = {"random": 600, "control": 192, "explore": 192, "test": 300}  # steps per game
DEADLINE_S = 900


def start(directory: Path, *settings: str) -> subprocess.Popen[bytes]:
    """The loop in its own process, which may be killed."""
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    with (directory.parent / f"{directory.name}.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "genie_ray", "run", str(SMOKE), *settings, "--out", str(directory)],
            stdout=log,
            stderr=log,
            env=environment,
        )


def finish(directory: Path, *settings: str) -> None:
    process = start(directory, *settings)
    assert process.wait(timeout=DEADLINE_S) == 0, (directory.parent / f"{directory.name}.log").read_text()[-3000:]


def kill_once(directory: Path, sign: str) -> None:
    """Starts the loop and kills its driver with SIGKILL as soon as a file matches `sign`."""
    process = start(directory)
    end = time.monotonic() + DEADLINE_S
    while not list(directory.glob(sign)):
        assert process.poll() is None, (directory.parent / f"{directory.name}.log").read_text()[-3000:]
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def peaceful(roms: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose stages were beside each other where they may be."""
    directory = tmp_path_factory.mktemp("runs") / "peaceful"
    finish(directory, "ray.stages_at_once=true")
    return directory


def assert_steps(dataset: ReplayDataset, steps: int) -> None:
    """Each game has that many; the play of an explorer's training a few fewer, where an episode ended in a decision."""
    counts = {game: counts.actions for game, counts in dataset.metadata.counts.items()}
    assert set(counts) == {"Hero-Atari2600-v0", "Kangaroo-Atari2600-v0"}
    fewer = 8 if dataset.root.name == "explore" else 0
    assert all(steps - fewer <= count <= steps for count in counts.values()), counts


def stage_names(directory: Path) -> list[str]:
    return [stage.name for stage in stages(load_config(SMOKE), directory)]


def test_the_decoder_is_tuned_before_the_dynamics_on_the_same_play(tmp_path: Path) -> None:
    names = stage_names(tmp_path)
    for source in ("control", "explore"):
        tuning = [f"datasets/{source}", f"decoder/{source}", f"decoder/{source}/world_model", f"finetuned/{source}"]
        assert sorted(tuning, key=names.index) == tuning


def test_each_game_may_have_a_model_of_its_own(tmp_path: Path) -> None:
    config = load_config(SMOKE, ["finetune_apart=true", "exploration.shared=false"])
    names = [stage.name for stage in stages(config, tmp_path)]
    assert [name for name in names if name.startswith(("agent", "finetuned"))] == [
        *(f"agent/{game}" for game in config.games),
        *(f"finetuned/{source}/{game}" for source in ("explore", "control") for game in config.games),
    ]


def test_a_run_of_an_earlier_version_is_refused(tmp_path: Path, roms: list[str]) -> None:
    (tmp_path / "finetuned" / "control").mkdir(parents=True)
    (tmp_path / "finetuned" / "control" / "job.json").write_text("{}")
    with pytest.raises(ValueError, match="did not tune the decoder: give another --out"):
        run_loop(load_config(SMOKE), tmp_path)


@pytest.mark.slow
def test_the_loop_leaves_every_artefact(peaceful: Path) -> None:
    for name, steps in DATASETS.items():
        dataset = ReplayDataset(peaceful / "datasets" / name)
        assert_steps(dataset, steps)
        assert verify(dataset.root) == []
    base, on_random, on_explored = (
        checkpoint.read_description(peaceful / path / "best")
        for path in ("dynamics", "finetuned/control", "finetuned/explore")
    )
    assert len({base["weights_sha256"], on_random["weights_sha256"], on_explored["weights_sha256"]}) == 3
    # Each fine-tuned model has a decoder of its own, tuned to the same play; their tokens are the base model's.
    assert len({each["tokenizer_sha256"] for each in (base, on_random, on_explored)}) == 3
    paths = ["tokenizer/best", "decoder/control/best", "decoder/explore/best", "finetuned/explore/best"]
    assert len({checkpoint.describe(peaceful / path)["tokens_sha256"] for path in paths}) == 1
    for source, tuned in (("control", on_random), ("explore", on_explored)):
        decoder = checkpoint.read_description(peaceful / "decoder" / source / "best")
        assert tuned["tokenizer_sha256"] == decoder["weights_sha256"]
        assert decoder["provenance"]["dataset"] == tuned["provenance"]["dataset"]
    assert base["provenance"]["dataset"] == ReplayDataset(peaceful / "datasets/random").content_hash()
    assert on_explored["provenance"]["dataset"] == ReplayDataset(peaceful / "datasets/explore").content_hash()


def test_levels_of_the_test_play_that_others_play_too_are_refused(tmp_path: Path) -> None:
    config = load_config(SMOKE, ["collection.test_levels=[9999, 5]"])
    with pytest.raises(ValueError, match=r"test_levels = \[9999, 5\]: must share no level with .* = \[0, 10000\]"):
        run_loop(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_no_training_has_seen_the_test_episodes(peaceful: Path) -> None:
    play = {name: ReplayDataset(peaceful / "datasets" / name) for name in DATASETS}
    actions = {
        name: {dataset.read(reference).actions.tobytes() for reference in dataset.episodes if reference.length > 20}
        for name, dataset in play.items()
    }
    for name in ("random", "control", "explore"):
        assert not actions["test"] & actions[name]
    assert not actions["random"] & actions["control"]


@pytest.mark.slow
def test_the_report_shows_the_table_and_says_who_won(peaceful: Path) -> None:
    page = (peaceful / "report.html").read_text()
    tokenizers = [f"tokenizer alone{of}" for of in ("", f": {ON_RANDOM}", f": {ON_EXPLORED}")]
    for row in ("copy last frame", *tokenizers, BASE, ON_RANDOM, ON_EXPLORED):
        assert row in page
    for game in ("Hero-Atari2600-v0", "Kangaroo-Atari2600-v0"):
        assert f"{game}: " in page
    # A clip and a strip of each of the world model's predictions; of the explorer's evaluation a clip and two pictures.
    assert page.count("data:image/gif;base64,") + 1 == page.count("data:image/png;base64,") > 4
    assert 'src="http' not in page
    assert 'href="http' not in page


@pytest.mark.slow
def test_the_report_shows_how_much_was_seen(peaceful: Path) -> None:
    coverage = (peaceful / "report.html").read_text().partition("<th>cells, explored</th>")[2]
    for game in ("Hero-Atari2600-v0", "Kangaroo-Atari2600-v0"):
        seen = []
        for name in ("explore", "control"):
            dataset = ReplayDataset(peaceful / "datasets" / name)
            frames = [dataset.read(reference).frames for reference in dataset.episodes if reference.game == game]
            seen.append(len(np.unique(cells(np.concatenate(frames)))))
        assert f"<td>{game}</td><td>{seen[0]}</td><td>{seen[1]}</td>" in coverage
    plots = coverage.partition('<div class="plots">')[2].partition("</div>")[0]
    assert plots.count("<svg") == 2  # a curve of each game


@pytest.mark.long
def test_a_loop_killed_in_each_kind_of_stage_ends_like_an_unbroken_one(peaceful: Path) -> None:
    directory = peaceful.parent / "killed"
    signs = [
        "datasets/random/game=*/*.parquet",  # in the middle of a collection
        "tokenizer/resume/checkpoint_*",  # in the middle of a training
        "agent/*/state-*",  # in the middle of exploring
        "decoder/control/resume/checkpoint_*",  # in the middle of tuning a decoder
    ]
    for sign in signs:
        kill_once(directory, sign)
    finish(directory)

    for name in ("random", "control"):  # scripted play: byte for byte
        ours, theirs = (ReplayDataset(path / "datasets" / name).content_hash() for path in (directory, peaceful))
        assert ours == theirs
    for name in DATASETS:
        dataset = ReplayDataset(directory / "datasets" / name)
        assert_steps(dataset, DATASETS[name])
        assert verify(dataset.root) == []
    for path in ("tokenizer/last", "dynamics/last", "decoder/control/last", "finetuned/control/last"):
        ours, theirs = (checkpoint.read_description(run / path) for run in (directory, peaceful))
        assert ours["weights_sha256"] == theirs["weights_sha256"], path
    for metrics in directory.glob("**/metrics.jsonl"):
        if metrics.parent != directory:
            lines = [json.loads(line) for line in metrics.read_text().splitlines()]
            logged = [(line["iteration"], "validation_loss" in line) for line in lines]
            assert logged == sorted(set(logged)), metrics

    files = [
        path for path in directory.rglob("*") if path.is_file() and path.name not in ("report.html", "config.yaml")
    ]
    finished = [path.stat().st_mtime_ns for path in files]
    finish(directory)  # once more: nothing is left to do
    assert [path.stat().st_mtime_ns for path in files] == finished
