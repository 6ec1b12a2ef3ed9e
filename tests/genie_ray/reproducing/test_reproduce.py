"""A table made for real, at the scale *tiny*: everything once, whichever table needs it, and what it says of itself."""

import csv
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from genie_ray.cli import app
from genie_ray.evaluating.published_figures import FIGURES
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.reproducing.plan import Plan, read_plan
from genie_ray.reproducing.run import missing_jobs, reproduce
from genie_ray.reproducing.stages import MADE_FILE, artefact, directory_of, scores_of
from world_model.checkpoint import read_description

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("roms", "ray_session")]
GAME = ["Kangaroo-Atari2600-v0"]
MODELS = ["dynamics", "finetune"]
SETS = {"all": GAME, "many": GAME, "few": GAME}


def ablation() -> Plan:
    return read_plan("tab4", "tiny", games=SETS)


def state(out: Path) -> dict[str, int]:
    """Every file of every job, and when it was written."""
    return {str(path): path.stat().st_mtime_ns for path in sorted(out.glob("jobs/**/*")) if path.is_file()}


@pytest.fixture(scope="module")
def out(roms: list[str], ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the ablation was made."""
    directory = tmp_path_factory.mktemp("reproduce")
    reproduce(ablation(), directory)
    return directory


def test_rows_are_scored_beside_the_papers(out: Path) -> None:
    plan = ablation()
    lines = (out / "tab4-tiny" / "table.md").read_text().splitlines()
    (head,) = [line for line in lines if line.startswith("| row ")]
    cells = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines if "|" in line
    }
    titles = cells["row"]
    for row in plan.rows:
        job = row.jobs[0]
        scores = scores_of(job, out, scored="model")["row"]
        found = dict(zip(titles, cells[row.label], strict=True))
        assert found["PSNR (dB)"] == f"{scores['psnr_mean']:.2f}"
        assert found["windows"] == "4"
        assert found["paper: PSNR (dB)"] == f"{row.paper['psnr_mean']:.2f}"
    assert cells["*copy the last frame*"][titles.index("paper: PSNR (dB)")] == ""
    text = "\n".join(lines)
    assert "finetune: iterations 4 (80,000), batch_size 4 (160)" in text
    assert re.search(r"TDCE helps: PSNR \(dB\) [+-]\d", text)
    assert (out / "tab4-tiny" / "rows.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(csv.DictReader((out / "tab4-tiny" / "rows.csv").read_text().splitlines()))) == len(plan.rows)
    assert head.count("paper: ") == len(FIGURES)


def test_what_was_made_is_what_the_recipes_say(out: Path) -> None:
    """Read from the artefacts themselves."""
    rows = {row.label: row.jobs[0] for row in ablation().rows}
    settings = {
        label: read_description(artefact(job.inputs["model"], out))["config"]["dynamics"] for label, job in rows.items()
    }
    switches = {label: (one["token_input_scale"], one["tdce_weight"]) for label, one in settings.items()}
    assert list(switches.values()) == [(0.0, 0.0), (0.0, 0.0), (10.0, 0.0), (10.0, 3.0), (10.0, 3.0)]
    identity = json.loads((directory_of(rows["+ TDCE"].inputs["model"], out) / "result" / "job.json").read_text())
    first = rows["GenieRedux-G of many games"].inputs["model"]
    assert identity["init"] == read_description(artefact(first, out))["weights_sha256"]
    protocols = {
        label: json.loads((artefact(job, out) / "evaluation.json").read_text())["protocol"]["decoding"]["mode"]
        for label, job in rows.items()
    }
    assert list(protocols.values()) == ["one_go"] * 4 + ["autoregressive"]
    assert ReplayDataset(artefact(rows["+ TDCE"].inputs["test"], out)).metadata.policy == "random"


def test_a_repeated_command_makes_nothing(out: Path) -> None:
    before = state(out)
    assert missing_jobs(ablation(), out) == []
    arguments = ["reproduce", "tab4", "--out", str(out)]
    for name, games in SETS.items():
        arguments += ["--games", f"{name}={','.join(games)}"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert (result.exit_code, state(out)) == (0, before)
    assert "0 of 13 jobs are to be made" in result.stdout
    assert (out / "tab4-tiny" / "table.md").read_text() in result.stdout


def test_another_table_makes_only_what_is_missing(out: Path) -> None:
    plan = read_plan("tab5", "tiny", games={**SETS, "tested": GAME}, only=["pre-trained"])
    before = state(out)
    missing = missing_jobs(plan, out)
    assert len(plan.jobs()) == 8
    assert [job.kind for job in missing] == ["player", "play", "evaluation"]  # the ablation is tested on random play
    other = read_plan("tab5", "tiny", games={**SETS, "tested": GAME}, only=["pre-trained"], seeds=[0, 1])
    kinds = sorted(job.kind for job in missing_jobs(other, out))
    assert kinds == sorted(["player", "play", "evaluation", *["play"] * 2, "tokenizer", *MODELS, "evaluation"])
    scratch = read_plan("tab5", "tiny", games={**SETS, "tested": GAME}, only=["random; autoregressive decoding"])
    new = missing_jobs(scratch, out)
    assert [job.kind for job in new] == ["play", "decoder", "adapted", "finetune", "player", "play", "evaluation"]
    reproduce(scratch, out)
    after = state(out)
    assert {path: after[path] for path in before} == before
    assert {Path(path).parts[-2] for path in set(after) - set(before) if path.endswith(MADE_FILE)} == {
        directory_of(job, out).name for job in new
    }
    text = (out / "tab5-tiny" / "table.md").read_text()
    assert re.search(r"\| random; autoregressive decoding \| \d", text)
    assert re.search(r"\| from scratch \|  \|", text)  # which nobody made
    assert "Are the test agents better than chance?" in text


def test_a_job_that_was_interrupted_goes_on(out: Path) -> None:
    (evaluation,) = [row.jobs[0] for row in ablation().rows if row.label == "+ TDCE"]
    model = evaluation.inputs["model"]
    for job in (evaluation, model):
        (directory_of(job, out) / MADE_FILE).unlink()
    trained = (artefact(model, out) / "model.safetensors").stat().st_mtime_ns
    assert missing_jobs(ablation(), out) == [model, evaluation]
    reproduce(ablation(), out)
    assert missing_jobs(ablation(), out) == []
    assert (artefact(model, out) / "model.safetensors").stat().st_mtime_ns == trained  # the training knew it was done
