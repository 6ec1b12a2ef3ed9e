"""Errors inside a replica reach the requests that they concern, and do not end the replica."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from genie_ray.rewards.deployment import bind, check_checkpoint, replica_settings
from genie_ray.rewards.judges import Judge, Judgement, UncertaintyJudge
from genie_ray.rewards.service import deploy, remove_what_was_left, service_name
from genie_ray.rewards.windows import Windows
from policies.ray_internals import serve_runs
from policies.rewards import RewardAnswer
from tests.genie_ray.rewards.small_world import CONFIG, FITS, SERVED, Recording, fragments, started, world_model
from world_model.genie import GenieReduxG


@pytest.mark.slow
def test_serve_stops_with_the_only_service_that_a_killed_run_left(
    ray_session: None, checkpoints: list[Path], tmp_path: Path
) -> None:
    version = check_checkpoint(checkpoints[0], **FITS)
    settings = replica_settings(checkpoints[0], SERVED, version=version, state=None)
    deploy(bind(SERVED, settings, checkpoints[0]), service_name(tmp_path / "killed"))
    remove_what_was_left(service_name(tmp_path))
    assert serve_runs()
    remove_what_was_left(service_name(tmp_path / "killed"))
    assert not serve_runs()


def test_rewards_that_are_not_finite_are_no_rewards(checkpoints: list[Path], models: list[GenieReduxG]) -> None:
    async def ask() -> None:
        replica, _ = await started(checkpoints[0], models[0])
        broken = world_model(0)
        with torch.no_grad():
            broken.dynamics.to_logits.bias.fill_(torch.nan)
        replica._judge = UncertaintyJudge(broken, CONFIG, "broken")
        await replica.rewards("id", *fragments(6))

    with pytest.raises(ArithmeticError, match="judge broken gave rewards that are not finite"):
        asyncio.run(ask())


class Failing(Recording):
    """Fails to learn from its first batch, and to judge its second."""

    def __init__(self, judge: Judge) -> None:
        super().__init__(judge)
        self.learned: list[int] = []  # batches judged by then

    def judge(self, windows: Windows) -> Judgement:
        judged = super().judge(windows)
        if len(self.asked) == 2:
            raise RuntimeError("a batch that fails")
        return judged

    def learn(self) -> None:
        self.learned.append(len(self.asked))
        if len(self.learned) == 1:
            raise RuntimeError("gradients that are not finite")

    def get_state(self) -> dict[str, Any]:
        return {"rf": {"weights": torch.full((2,), torch.nan)}}


def test_what_fails_beside_the_answers_ends_nobody(
    checkpoints: list[Path],
    models: list[GenieReduxG],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """… and weights that are not finite are not saved; the next attempt has to wait."""

    async def ask() -> tuple[list[Any], Failing]:
        replica, recording = await started(checkpoints[0], models[0], kind="rf")
        replica._judge = failing = Failing(recording._judge)
        monkeypatch.setattr(replica, "_saved", -1e9)  # long ago
        asked = (replica.rewards(str(number), *fragments(6)) for number in range(4))
        answers = [(await asyncio.gather(one, return_exceptions=True))[0] for one in asked]
        again = await replica.rewards("1", *fragments(6))  # a failure is not remembered
        assert replica._worker is not None
        await replica._worker  # which learns after it has answered
        return [*answers, again], failing

    (first, second, *others), failing = asyncio.run(asyncio.wait_for(ask(), 60))
    assert isinstance(second, RuntimeError)
    assert all(isinstance(answer, RewardAnswer) for answer in (first, *others))
    assert failing.learned == [1, 3, 4, 5]
    messages = [record.message for record in caplog.records]
    assert messages == [
        "judge rf+0.0 could not learn",
        "the state of judge rf+0.0 could not be saved",
    ]
    saved = torch.load(checkpoints[0].parent / "state" / "rf.pt", weights_only=True)["state"]
    assert all(weights.isfinite().all() for weights in saved["model"].values())
