"""What happens to stored rewards under a new judge."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from policies.autoexplore.config import AutoExploreLearningConfig
from policies.autoexplore.judging import REQUEST_STEPS, SCALE, ReplayJudge
from policies.replay import SequenceReplayBuffer
from policies.rewards import RewardAnswer, RewardUnavailableError
from tests.policies.episodes import fragment
from tests.policies.toys import Ready


class Asked:
    """A judge whose rewards are all 5; it fails after a number of requests."""

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.steps: list[int] = []

    def submit(self, frames: list[np.ndarray], actions: list[np.ndarray], **kwargs: Any) -> Any:
        self.steps.append(sum(map(len, actions)))
        return (
            Ready([np.full(len(a), 5.0, np.float32) for a in actions], version="second")
            if (len(self.steps) <= self.answers)
            else Gone()
        )


class Gone:
    def answer(self, timeout_s: float) -> RewardAnswer:
        raise RewardUnavailableError("the service is gone")


def asked_again(lengths: Sequence[int], answers: int) -> tuple[Asked, SequenceReplayBuffer]:
    replay, client = SequenceReplayBuffer(capacity=10_000, seed=0), Asked(answers)
    learning = replace(AutoExploreLearningConfig(), old_rewards="ask")
    judge = ReplayJudge(replay, lambda: client, learning, 1.0)
    old = [fragment(str(number), 0, length) for number, length in enumerate(lengths)]
    judge.mark(old, "first")
    replay.add(old)
    judge.mark([fragment("new", 0, 10)], "second")
    return client, replay


def test_stored_rewards_are_asked_for_in_requests_of_bounded_size() -> None:
    client, replay = asked_again([200] * 5 + [REQUEST_STEPS + 1], answers=100)
    assert client.steps == [400, 400, 200, REQUEST_STEPS + 1]
    for episode in replay.episodes:
        assert (episode.get_rewards() == 5).all()
        assert (episode.get_extra_model_outputs(SCALE) == 1).all()


@pytest.mark.parametrize("answers", [0, 1])
def test_rewards_that_cannot_be_asked_for_stay_and_keep_their_judge(
    answers: int, caplog: pytest.LogCaptureFixture
) -> None:
    _, replay = asked_again([300, 300], answers=answers)
    for number, episode in enumerate(replay.episodes):
        new = number < answers
        np.testing.assert_array_equal(episode.get_rewards(), np.full(300, 5.0) if new else np.arange(300))
        assert (episode.get_extra_model_outputs(SCALE) == int(new)).all()
    assert "not all stored rewards were judged again" in caplog.text
