"""A table of two rows, made for real: what is made, what is shared, and what it says of itself.

Its play and its first model are there already, made for all tests; the long tests (test_reproduce.py) make all kinds of
jobs.
"""

import csv
import json
import os
import re
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from genie_ray.base.settings import to_dict
from genie_ray.cli import app
from genie_ray.replay.coverage import cells, place_of
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.reproducing.plan import TABLES, Plan, read_plan
from genie_ray.reproducing.run import missing_jobs, reproduce
from genie_ray.reproducing.stages import MADE_FILE, artefact, directory_of, is_made, scores_of
from world_model.checkpoint import WorldModel, read_config, read_description

pytestmark = pytest.mark.slow
TDCE, PAPERS = "+ TDCE", {"test_set": "Platformers-50", "model": "+ TDCE"}


@pytest.fixture(scope="module")
def table(world_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its file. The base model is built like the one that is there."""
    built = read_config(WorldModel, world_model)
    scale = {
        "games": {"played": ["Kangaroo-Atari2600-v0"]},
        "amounts": {"play": {"steps": 600}, "test": {"steps": 60}},
    }
    training, model = yaml.safe_load((TABLES / "scales" / "tiny.yaml").read_text())["finetune"], "model.dynamics"
    described = {
        "title": "What TDCE adds",
        "source": "ours",
        "settings": {
            "env": {"max_episode_steps": 60},
            "tokenizer": to_dict(built.tokenizer),
            "dynamics": {**to_dict(built.dynamics), "tdce_weight": 0.0},
            "train_tokenizer": training,
            "train_dynamics": training,
            "finetune": training,
            "evaluation": {"windows_per_game": 2, "film_strips": 0, "ceiling": False, "decoding": {"steps": 1}},
        },
        "scales": {
            "tiny": scale,
            "published": {**scale, "amounts": {"play": {"steps": 10_000}, "test": {"steps": 60}}},
        },
        "jobs": {
            "play": {"kind": "play", "games": "played", "amount": "play", "purpose": "random"},
            "test play": {"kind": "play", "games": "played", "amount": "test", "purpose": "test", "seed": 0},
            "tokenizer": {"kind": "tokenizer", "data": "play"},
            "base": {"kind": "dynamics", "data": "play", "tokenizer": "tokenizer"},
            "tuned": {
                "kind": "finetune",
                "data": "play",
                "init": "base",
                "settings": {"dynamics": {"tdce_weight": 3.0}},
            },
        },
        "rows": [
            {"row": "base", "model": "base", "test": "test play", "means": {f"{model}.tdce_weight": 0.0}},
            {"row": TDCE, "model": "tuned", "test": "test play", "means": {f"{model}.tdce_weight": 3.0}},
        ],
        "claims": [{"claim": "TDCE helps", "more": TDCE, "less": "base"}],
        "coverage": ["play", "test play"],
    }
    described["rows"][1]["published"] = PAPERS
    path = tmp_path_factory.mktemp("table") / "small.yaml"
    path.write_text(yaml.safe_dump(described, sort_keys=False))
    return path


def planned(table: Path, **more: object) -> Plan:
    return read_plan(str(table), "tiny", **more)


@pytest.fixture(scope="module")
def out(
    table: Path, replay: ReplayDataset, world_model: Path, ray_session: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A directory in which the table was made, after the play and the base model were put there."""
    directory = tmp_path_factory.mktemp("out")
    base = planned(table).rows[0].jobs[0].inputs["model"]
    for job, place, target in (
        (base, "result/best", world_model),
        (base.inputs["data"], "result", Path(str(replay.root))),
    ):
        (directory_of(job, directory) / place).parent.mkdir(parents=True)
        (directory_of(job, directory) / place).symlink_to(target)
        (directory_of(job, directory) / MADE_FILE).write_text("{}")
    made = [job.name for job in missing_jobs(planned(table), directory)]
    assert made == ["test play", "base", "tuned", TDCE]  # not the tokenizer, which only the base model needs
    reproduce(planned(table), directory)
    return directory


def state(out: Path) -> dict[str, int]:
    """Every file of every job, and when it was written."""
    return {str(path): path.stat().st_mtime_ns for path in sorted(out.glob("jobs/**/*")) if path.is_file()}


def test_rows_are_scored_beside_the_papers(table: Path, out: Path) -> None:
    text = (out / "small-tiny" / "table.md").read_text()
    head = text.partition("\n## ")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in head.splitlines() if line.startswith("|")]
    titles = lines[0]
    cells = {line[0]: dict(zip(titles, line, strict=True)) for line in lines[2:]}
    for row in planned(table).rows:
        scores = scores_of(row.jobs[0], out, scored="model")["row"]
        assert cells[row.label]["PSNR (dB)"] == f"{scores['psnr_mean']:.2f}"
        assert cells[row.label]["windows"] == "2"
    assert (cells["base"]["paper: PSNR (dB)"], cells[TDCE]["paper: PSNR (dB)"]) == ("", "27.06")
    gain = [scores_of(row.jobs[0], out, scored="model")["row"]["psnr_mean"] for row in planned(table).rows]
    assert re.search(r"TDCE helps: PSNR \(dB\) ([+-]\d+\.\d\d)", text)[1] == f"{gain[1] - gain[0]:+.2f}"
    assert "base: random play: amount 600 steps (10,000 steps)" in text
    (first, second) = csv.DictReader((out / "small-tiny" / "rows.csv").read_text().splitlines())
    assert (first["row"], second["paper_psnr_mean"]) == ("base", "27.06")
    assert (out / "small-tiny" / "rows.png").read_bytes().startswith(b"\x89PNG")


def test_the_coverage_of_both_plays_is_told_in_as_many_steps(table: Path, out: Path) -> None:
    """Of 60 steps each, the length of the shorter, and so of the first 60 of the other."""
    lines = (out / "small-tiny" / "table.md").read_text().partition("## What the play has seen")[2].splitlines()
    found = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")][1:3]
    evaluation = planned(table).rows[0].jobs[0]
    plays = {"play": evaluation.inputs["model"].inputs["data"], "test play": evaluation.inputs["test"]}
    assert [line[:3] for line in found] == [[name, "0", "60"] for name in plays]
    for line, job in zip(found, plays.values(), strict=True):
        dataset = ReplayDataset(artefact(job, out))
        episode = dataset.read(dataset.episodes[0])  # which is at least as long
        assert len(episode.actions) >= 60
        assert int(line[3]) == len(set(cells(episode.frames[:61]).tolist()))
        assert int(line[4]) == len({place_of(info) for info in episode.infos[:61]})


def test_what_was_made_is_what_the_recipe_says(table: Path, out: Path, world_model: Path) -> None:
    evaluation = planned(table).rows[1].jobs[0]
    tuned = evaluation.inputs["model"]
    assert read_description(artefact(tuned, out))["config"]["dynamics"]["tdce_weight"] == 3.0
    identity = json.loads((directory_of(tuned, out) / "result" / "job.json").read_text())
    assert identity["init"] == read_description(world_model)["weights_sha256"]
    assert identity["config"]["iterations"] == 4
    test = ReplayDataset(artefact(evaluation.inputs["test"], out))
    assert (test.metadata.policy, sum(episode.length for episode in test.episodes)) == ("random", 60)
    recipe = json.loads((directory_of(tuned, out) / "recipe.json").read_text())
    assert {key: recipe[key] for key in ("kind", "settings", "inputs")} == tuned.recipe


def test_a_repeated_command_makes_nothing(table: Path, out: Path) -> None:
    before = state(out)
    result = CliRunner().invoke(app, ["reproduce", str(table), "--out", str(out)], catch_exceptions=False)
    assert (result.exit_code, state(out)) == (0, before)
    assert "0 of 7 jobs are to be made" in result.stdout
    assert (out / "small-tiny" / "table.md").read_text() in result.stdout


def test_another_seed_shares_the_test_play_alone(table: Path, out: Path) -> None:
    missing = missing_jobs(planned(table, seeds=[1], only=["base"]), out)
    assert [job.name for job in missing] == ["play", "tokenizer", "base", "base"]


def test_an_interrupted_job_goes_on(table: Path, out: Path) -> None:
    evaluation = planned(table).rows[1].jobs[0]
    model = evaluation.inputs["model"]
    for job in (evaluation, model):
        (directory_of(job, out) / MADE_FILE).unlink()
    trained = os.stat(artefact(model, out) / "model.safetensors").st_mtime_ns
    assert missing_jobs(planned(table), out) == [model, evaluation]
    reproduce(planned(table), out)
    assert is_made(evaluation, out)
    assert os.stat(artefact(model, out) / "model.safetensors").st_mtime_ns == trained  # the training knew it was done
