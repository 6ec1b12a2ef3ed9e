"""A replica without Serve: batches across callers, one judgement per request, one version per answer; and the windows
that it is given when a real environment runner plays.
"""

import asyncio
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from ray.tune import register_env

from genie_ray.rewards.replica import RewardModel
from policies.autoexplore.algorithm import AutoExploreConfig
from policies.autoexplore.config import AutoExploreLearningConfig, AutoExploreModuleConfig
from policies.judged.env_runner import CuriosityEnvRunner
from policies.rewards import RewardAnswer
from tests.genie_ray.rewards.small_world import (
    assert_rewards,
    fragment,
    fragments,
    started,
    user_config,
)
from tests.policies.toys import ShowsAction
from world_model.checkpoint import weights_hash
from world_model.genie import GenieReduxG

LENGTHS = (12, 2, 4, 9)


def test_a_lone_caller_gets_the_models_rewards(checkpoints: list[Path], models: list[GenieReduxG]) -> None:
    async def ask() -> RewardAnswer:
        replica, _ = await started(checkpoints[0], models[0])
        return await replica.rewards("id", *fragments(*LENGTHS), maps=True)

    answer = asyncio.run(ask())
    assert_rewards(answer.rewards, models[0], *fragments(*LENGTHS))
    assert answer.version == weights_hash(models[0])
    assert answer.maps is not None
    for length, top, uncertainty in zip(LENGTHS, answer.statistics["entropy_top"], answer.maps, strict=True):
        assert top.shape == (length,)
        assert uncertainty.shape == (length, 2, 2)
        np.testing.assert_array_equal(np.isnan(uncertainty[:, 0, 0]), np.isnan(top))


def test_fragments_without_a_window_are_answered(checkpoints: list[Path], models: list[GenieReduxG]) -> None:
    async def ask() -> RewardAnswer:
        replica, _ = await started(checkpoints[0], models[0])
        return await replica.rewards("id", *fragments(0, 3))

    answer = asyncio.run(ask())
    assert [reward.tolist() for reward in answer.rewards] == [[], [pytest.approx(np.nan, nan_ok=True)] * 3]


def test_callers_share_batches_and_nobody_waits_for_one_to_fill(
    checkpoints: list[Path], models: list[GenieReduxG]
) -> None:
    """The first request, 2 windows, is judged at once; those that arrive meanwhile, 6 + 1 + 9, in batches of 7."""

    async def ask() -> tuple[list[RewardAnswer], list[int], dict[str, Any]]:
        replica, recording = await started(checkpoints[0], models[0])
        recording.go.clear()
        asked = [asyncio.create_task(replica.rewards("0", *fragments(5)))]
        await asyncio.sleep(0.05)
        asked += [asyncio.create_task(replica.rewards(str(n), *fragments(n))) for n in (9, 4, 12)]
        await asyncio.sleep(0.05)
        recording.go.set()
        answers = await asyncio.gather(*asked)
        return answers, [len(windows) for windows in recording.asked], await replica.stats()

    answers, batches, stats = asyncio.run(ask())
    assert batches == [2, 7, 7, 2]
    assert (stats["requests"], stats["windows"], stats["batches"], stats["waiting_requests"]) == (4, 18, 4, 0)
    for length, answer in zip((5, 9, 4, 12), answers, strict=True):
        assert_rewards(answer.rewards, models[0], *fragments(length))


def test_asked_again_under_the_same_id_it_is_judged_once(checkpoints: list[Path], models: list[GenieReduxG]) -> None:
    async def ask() -> tuple[list[RewardAnswer], int]:
        replica, recording = await started(checkpoints[0], models[0])
        recording.go.clear()
        both = [asyncio.create_task(replica.rewards("same", *fragments(6))) for _ in range(2)]
        await asyncio.sleep(0.05)
        both[0].cancel()  # a caller that gave up
        recording.go.set()
        answers = [await both[1], await replica.rewards("same", *fragments(6))]
        return answers, len(recording.asked)

    answers, judged = asyncio.run(ask())
    assert judged == 1
    for answer in answers:
        assert_rewards(answer.rewards, models[0], *fragments(6))


def test_an_answer_is_of_one_version_though_weights_are_swapped_meanwhile(
    checkpoints: list[Path], models: list[GenieReduxG]
) -> None:
    async def ask() -> list[RewardAnswer]:
        replica, recording = await started(checkpoints[0], models[0])
        recording.go.clear()
        old = asyncio.create_task(replica.rewards("old", *fragments(20)))  # three batches
        await asyncio.sleep(0.05)
        swap = asyncio.create_task(replica.reconfigure(user_config(checkpoints[1], models[1])))
        await asyncio.sleep(0.05)
        recording.go.set()
        await swap
        return [await old, await replica.rewards("new", *fragments(20))]

    for answer, model in zip(asyncio.run(ask()), models, strict=True):
        assert answer.version == weights_hash(model)
        assert_rewards(answer.rewards, model, *fragments(20))


def test_one_callers_mistake_is_not_the_others(checkpoints: list[Path], models: list[GenieReduxG]) -> None:
    async def ask() -> list[Any]:
        replica, recording = await started(checkpoints[0], models[0])
        recording.go.clear()
        frames, actions = fragment(6)
        asked = [replica.rewards("bad", [frames], [actions + 9]), replica.rewards("good", *fragments(6))]
        tasks = [asyncio.create_task(one) for one in asked]
        await asyncio.sleep(0.05)
        recording.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    bad, good = asyncio.run(ask())
    assert isinstance(bad, ValueError)
    assert_rewards(good.rewards, models[0], *fragments(6))


def test_learning_goes_on_after_a_restart(checkpoints: list[Path], models: list[GenieReduxG]) -> None:
    async def ask() -> list[str]:
        replica, _ = await started(checkpoints[0], models[0], kind="rf")
        replica._judge = replica._judge._judge  # type: ignore[union-attr]
        first = await replica.rewards("0", *fragments(10))  # one batch
        await replica.save()
        restarted, _ = await started(checkpoints[0], models[0], kind="rf")
        second = await restarted.rewards("1", *fragments(10))
        return [first.version, second.version]

    assert asyncio.run(ask()) == ["rf+0.0", "rf+1.1"]


@pytest.mark.parametrize("kind", ["rf", "disagreement"])
def test_a_request_is_judged_whole_before_anything_is_learned_from_it(
    checkpoints: list[Path], models: list[GenieReduxG], kind: str
) -> None:
    """Else the windows that are judged first would be paid by a younger judge."""

    async def ask(batch_size: int) -> list[RewardAnswer]:
        replica, _ = await started(checkpoints[0], models[0], kind=kind, batch_size=batch_size)
        replica._judge = replica._judge._judge  # type: ignore[union-attr]
        return [await replica.rewards(name, *fragments(*LENGTHS)) for name in ("0", "1")]

    whole, cut = asyncio.run(ask(100)), asyncio.run(ask(4))
    for one, other in zip(whole[0].rewards, cut[0].rewards, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)
    # 9 + 1 + 6 windows are learned from in one batch of 100 and in four of 4; the second request is judged after that.
    assert [updates_between(*answers) for answers in (whole, cut)] == [1, 4]
    assert whole[0].version.rpartition(".")[2] == cut[0].version.rpartition(".")[2]  # its last batch is no older


def test_what_could_not_be_judged_is_not_learned_from(checkpoints: list[Path], models: list[GenieReduxG]) -> None:
    async def ask() -> list[RewardAnswer]:
        replica, recording = await started(checkpoints[0], models[0], kind="rf")
        judge, recording.fails_at = recording._judge, 1
        with pytest.raises(ArithmeticError):
            await replica.rewards("fails", *fragments(20))  # in its second batch of three
        first = await replica.rewards("0", *fragments(10))
        replica._judge = judge
        return [first, await replica.rewards("1", *fragments(10))]

    assert updates_between(*asyncio.run(ask())) == 1


def updates_between(first: RewardAnswer, second: RewardAnswer) -> int:
    """How often a judge learned between two answers."""
    before, after = (int(answer.version.rpartition(".")[2]) for answer in (first, second))
    return after - before


def test_an_id_is_one_questions(checkpoints: list[Path], models: list[GenieReduxG]) -> None:
    async def ask() -> None:
        replica, _ = await started(checkpoints[0], models[0])
        frames, actions = fragments(6)
        await replica.rewards("same", frames, actions)
        for others in ((frames, [actions[0][::-1]]), ([frames[0][::-1]], actions)):
            with pytest.raises(ValueError, match="'same' was used by another request; allowed: a fresh UUID"):
                await replica.rewards("same", *others)
        with pytest.raises(ValueError, match="was used by another request"):
            await replica.rewards("same", frames, actions, maps=True)

    asyncio.run(ask())


class Ready:
    """An answer that is ready."""

    def __init__(self, answer: RewardAnswer) -> None:
        self._answer = answer

    def result(self, timeout_s: float) -> list[np.ndarray]:
        return self._answer.rewards

    def answer(self, timeout_s: float) -> RewardAnswer:
        return self._answer


class ReplicaClient:
    """Asks a replica in this process."""

    def __init__(self, replica: RewardModel) -> None:
        self._replica = replica

    def submit(
        self, frames: list[np.ndarray], actions: list[np.ndarray], *, episodes: Sequence[str] | None = None, **_: Any
    ) -> Ready:
        return Ready(asyncio.run(self._replica.rewards(uuid.uuid4().hex, frames, actions)))


def test_each_transition_is_judged_by_its_own_frames_and_actions(
    checkpoints: list[Path], models: list[GenieReduxG], ray_session: None
) -> None:
    """A frame shows the action that led to it and its step. So the model must be given, for the transition into frame
    t, frames that show steps t−4 and t−3 and actions t−5 and t−4; and the actions that frames t−3 … t will show.
    """
    register_env("shows_action", ShowsAction)
    replica, recording = asyncio.run(started(checkpoints[0], models[0], batch_size=1000))
    runner = CuriosityEnvRunner(
        config=AutoExploreConfig()
        .environment("shows_action", env_config={"length": 17})
        .training(
            learning=AutoExploreLearningConfig(num_envs=2, steps_per_epoch=40, fragment_length=10),
            network=AutoExploreModuleConfig(channels=(4,), lstm_size=8),
            reward_client_factory=lambda: ReplicaClient(replica),
        )
    )
    weights = {COMPONENT_RL_MODULE: runner.module.get_state(), WEIGHTS_SEQ_NO: 0}
    played = [episode for _ in range(5) for episode in runner.play_fragment(weights=weights, env_steps=0).episodes]
    runner.stop()
    assert len(recording.asked) == 5
    judged = 0
    for windows in recording.asked:
        primes_M2HWC, actions_M4 = windows.frames[:, :2], windows.actions_M4  # what the world model is asked
        steps_M = windows.frames[:, 4, 0, 0, 1].astype(int)  # t
        np.testing.assert_array_equal(primes_M2HWC[:, :, 0, 0, 1].astype(int), steps_M[:, None] + [[-4, -3]])
        shown_M5 = windows.frames[:, :, 0, 0, 0].astype(int) // 50 - 1
        np.testing.assert_array_equal(primes_M2HWC[:, 1, 0, 0, 0] // 50 - 1, shown_M5[:, 1])
        np.testing.assert_array_equal(actions_M4, shown_M5[:, 1:])
        judged += len(steps_M)
    # Every transition from the fourth on is judged, once: the first four fragments are handed on.
    rewards = np.concatenate([episode.get_rewards() for episode in played])
    assert len({action for windows in recording.asked for action in windows.actions_M4.ravel()}) == 4
    assert (~np.isnan(rewards)).sum() == judged - len(recording.asked[-1])
