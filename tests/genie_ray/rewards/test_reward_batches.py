"""A replica without Serve around it: batches over callers, answers once, one version per answer; and the windows that
it is asked about when a real environment runner plays.
"""

import asyncio
import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.tune import register_env

from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.judges import Judge, Judgement, UncertaintyJudge, question
from genie_ray.rewards.replica import RewardModel
from genie_ray.rewards.windows import Windows
from policies.autoexplore.algorithm import AutoExploreConfig, AutoExploreLearningConfig
from policies.autoexplore.env_runner import CuriosityEnvRunner
from policies.autoexplore.module import AutoExploreModuleConfig
from policies.rewards import RewardAnswer
from tests.genie_ray.rewards.small_world import SCALE, TOP_K, assert_rewards, fragment, fragments, world_model
from tests.policies.toys import ShowsAction
from world_model.checkpoint import save, weights_hash
from world_model.genie import GenieReduxG

CONFIG = RewardConfig(top_k_fraction=TOP_K, scale=SCALE, batch_size=7)
LENGTHS = (12, 2, 4, 9)


@pytest.fixture(scope="module")
def models() -> list[GenieReduxG]:
    return [world_model(seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def checkpoints(models: list[GenieReduxG], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("world_models")
    for number, model in enumerate(models):
        save(model, root / str(number), provenance={})
    return [root / "0", root / "1"]


def user_config(checkpoint: Path, model: GenieReduxG, **changes: Any) -> dict[str, Any]:
    config = dataclasses.asdict(dataclasses.replace(CONFIG, **changes))
    state = str(checkpoint.parent / "state")
    return {
        "checkpoint": str(checkpoint), "version": weights_hash(model), "config": config, "state": state, "gpus": 0.0
    }  # fmt: skip


class Recording(Judge):
    """Another judge that writes down what it is asked, and can be made to wait."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.asked: list[Windows] = []
        self.go = threading.Event()
        self.go.set()

    @property
    def version(self) -> str:
        return self._judge.version

    def judge(self, windows: Windows) -> Judgement:
        self.asked.append(windows)
        assert self.go.wait(30)
        return self._judge.judge(windows)


async def started(checkpoint: Path, model: GenieReduxG, **changes: Any) -> tuple[RewardModel, Recording]:
    replica = RewardModel()
    await replica.reconfigure(user_config(checkpoint, model, **changes))
    assert replica._judge is not None
    replica._judge = recording = Recording(replica._judge)
    return replica, recording


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
    """The first request, 2 windows, is judged at once; those that come meanwhile, 6 + 1 + 9, in batches of 7."""

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


def test_learning_goes_on_after_a_restart(checkpoints: list[Path], models: list[GenieReduxG]) -> None:
    async def ask() -> list[str]:
        replica, _ = await started(checkpoints[0], models[0], kind="rf")
        replica._judge = replica._judge._judge  # type: ignore[union-attr]
        first = await replica.rewards("0", *fragments(10))  # one batch
        await replica.save()
        restarted, _ = await started(checkpoints[0], models[0], kind="rf")
        second = await restarted.rewards("1", *fragments(10))
        return [first.version, second.version]

    assert asyncio.run(ask()) == ["rf+0", "rf+1"]


class Ready:
    """An answer that is there."""

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
        return Ready(asyncio.run(self._replica.rewards(str(id(frames)), frames, actions)))


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
    played = [episode for _ in range(5) for episode in runner.sample()]
    runner.stop()
    assert len(recording.asked) == 5
    judged = 0
    for windows in recording.asked:
        primes_M2HWC, actions_M4 = question(windows, torch.device("cpu"))
        steps_M = windows.frames_M5HWC[:, 4, 0, 0, 1].astype(int)  # t
        np.testing.assert_array_equal(primes_M2HWC[:, :, 0, 0, 1], steps_M[:, None] + [[-4, -3]])
        shown_M5 = windows.frames_M5HWC[:, :, 0, 0, 0].astype(int) // 50 - 1
        np.testing.assert_array_equal(primes_M2HWC[:, 1, 0, 0, 0] // 50 - 1, shown_M5[:, 1])
        np.testing.assert_array_equal(actions_M4, shown_M5[:, 1:])
        judged += len(steps_M)
    # Every transition from the fourth on is judged, once: the first four fragments are handed on.
    rewards = np.concatenate([episode.get_rewards() for episode in played])
    assert len({action for windows in recording.asked for action in windows.actions_M4.ravel()}) == 4
    assert (~np.isnan(rewards)).sum() == judged - len(recording.asked[-1])
