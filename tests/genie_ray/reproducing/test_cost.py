"""What a table would cost: operations against a count by hand, and steps of games."""

import pytest

from genie_ray.reproducing.cost import job_flops, job_steps
from genie_ray.reproducing.plan import read_plan

pytestmark = pytest.mark.usefixtures("roms", "procgen")


def test_operations_are_those_that_were_counted_by_hand() -> None:
    """At the published size: 593 GFLOP of products, 24 of attention and 4 of the head for the dynamics of one clip."""
    jobs = {job.name: job for job in read_plan("tab2", "published").jobs() if job.kind != "evaluation"}
    clips = 150_000 * 84
    guided = job_flops(jobs["GenieRedux-G"]) / clips  # the encoder once, the dynamics with their gradients
    latent = job_flops(jobs["GenieRedux"]) / clips
    tokenizer = job_flops(jobs["tokenizer"]) / (100_000 * 84)
    dynamics = (guided - tokenizer / 6) / 3  # encoder and decoder are alike, but for their ends
    assert dynamics == pytest.approx(0.621e12, rel=0.02)
    assert latent - guided == pytest.approx(tokenizer, rel=0.02)  # a latent action model is built like a tokenizer
    further = {name: job_flops(jobs[f"{name}-TA"]) / clips for name in ("GenieRedux", "GenieRedux-G")}
    assert further["GenieRedux"] - further["GenieRedux-G"] == pytest.approx(
        tokenizer, rel=0.02
    )  # it learns further, too
    assert job_steps(jobs["random play"]) == 10_000 * 500


@pytest.mark.parametrize("kind", ["fsq", "ema"])
def test_every_codebook_can_be_counted(kind: str) -> None:
    plan = read_plan("tab2", "tiny", overrides={"tokenizer": {"quantizer": {"kind": kind}}})
    assert all(job_flops(job) > 0 for job in plan.jobs() if job.kind in ("tokenizer", "dynamics", "genie_redux"))


def test_a_test_set_of_two_games_costs_twice_that_of_one() -> None:
    one, two = (read_plan(name, "tiny", only=["pre-trained"]).rows[0].jobs[0] for name in ("tab5", "tab12"))
    assert (one.inputs["test"].kind, two.inputs["test"].kind) == ("play", "gathered")
    assert job_flops(two) == 2 * job_flops(one) > 0
