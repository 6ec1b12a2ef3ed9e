"""The claim with one arm, made for real, but for trainings whose result is there: untrained models, as if trained.

So it takes seconds; the long tests (test_claim.py) train everything, and all arms.
"""

import json
from pathlib import Path

import pytest

from experiments.claim.plan import Comparison, Plan, read_plan
from experiments.claim.run import RESULT, Maker, run
from genie_ray.collecting.plan import Policy
from genie_ray.replay.loading.mixture import open_mix
from genie_ray.training import jobs
from genie_ray.training.finetuning import ADAPTED
from genie_ray.training.job import TrainingJob, begin
from genie_ray.training.tasks import TASKS
from world_model import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("roms", "ray_session")]
CONFIG = Path(__file__).parents[2] / "experiments" / "claim" / "config.yaml"
HELD = "random, held"


def finish(job: TrainingJob) -> Path:
    """Leaves what a finished training leaves, without training; returns the best checkpoint."""
    assert not begin(job)
    task, replay = TASKS[job.kind](job), open_mix(job.dataset)
    for name in ("last", "best"):
        checkpoint.save(task.build(replay), job.output / name, provenance={"action_names": None})
    return job.output / "best"


def prepare(comparison: Comparison, out: Path) -> None:
    """The base model, and the decoder of the arm."""
    maker, arm, config = Maker(comparison, out), comparison.arms[HELD], comparison.base
    comparison.keep([arm], out)
    maker.play(maker.base_play, Policy(name="random"), config.collection.random_steps, "base")
    base = maker.directory / "base"
    tokenizer = finish(jobs.tokenizer(config, maker.base_play, base / "tokenizer"))
    model = finish(jobs.dynamics(config, maker.base_play, base / "dynamics", tokenizer=tokenizer))
    decoder = comparison.arm_directory(arm, out) / "decoder"
    finish(jobs.decoder(arm.config, maker.arm_play(arm), decoder, tokenizer=model))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return read_plan(CONFIG, tiny=True)


def test_an_arm_is_fine_tuned_and_scored_and_nothing_is_repeated(plan: Plan, tmp_path: Path) -> None:
    (comparison,) = plan.comparisons
    prepare(comparison, tmp_path)
    there = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("model.safetensors")}
    assert len(there) == 6
    run(plan, [comparison], [HELD], tmp_path, "digest")
    assert {path: path.stat().st_mtime_ns for path in there} == there

    arm = comparison.arm_directory(comparison.arms[HELD], tmp_path)
    trained = json.loads((arm / "finetuned" / "job.json").read_text())
    adapted = checkpoint.read_description(arm / "decoder" / ADAPTED)
    assert trained["init"] == adapted["weights_sha256"]
    tuned = checkpoint.read_description(arm / "finetuned" / "best")
    assert tuned["weights_sha256"] != adapted["weights_sha256"]
    assert tuned["tokenizer_sha256"] == adapted["tokenizer_sha256"]

    row = json.loads((comparison.directory(tmp_path) / RESULT).read_text())
    one = row["arms"][HELD]
    assert (list(row["arms"]), one["played_by"], one["steps"]) == ([HELD], "chance", 256)
    assert one["all"]["PSNR t=10"] == pytest.approx(one["curves"]["all"][9])
    assert one["all"]["PSNR t=10"] != row["references"]["base model"]["all"]["PSNR t=10"]
    assert 0 <= row["unreached_windows"] <= row["windows"] <= 8
    assert row["depth"]["deep"] in (True, False, None)
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "results.md").read_text()
    assert f"| {HELD} |" in text

    written = (comparison.directory(tmp_path) / RESULT).stat().st_mtime_ns
    run(plan, [comparison], [HELD], tmp_path, "digest")
    assert (comparison.directory(tmp_path) / RESULT).stat().st_mtime_ns == written
