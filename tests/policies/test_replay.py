"""The replay buffer when it is full, and what becomes of stored rewards under a new judge."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from policies.autoexplore.config import AutoExploreLearningConfig
from policies.autoexplore.judging import REQUEST_STEPS, SCALE, ReplayJudge
from policies.autoexplore.replay import LEARNED, SequenceReplayBuffer
from policies.rewards import LOOKBACK, RewardAnswer, RewardUnavailableError
from tests.policies.toys import Ready


def fragment(name: str, start: int, steps: int, *, done: bool = False) -> SingleAgentEpisode:
    """Of an episode whose observations and actions show the step."""
    lookback = min(start, LOOKBACK)
    first, stop = start - lookback, start + steps
    return SingleAgentEpisode(
        id_=name,
        observations=[np.int64(t) for t in range(first, stop + 1)],
        actions=[np.int64(t) for t in range(first, stop)],
        rewards=[np.float32(t) for t in range(first, stop)],
        infos=[{}] * (lookback + steps + 1),
        t_started=start,
        len_lookback_buffer=lookback,
        truncated=done,
    ).to_numpy()


def test_what_is_stored_stays_consistent_while_the_oldest_goes() -> None:
    """Episodes of uneven runners: the oldest one may be evicted by the very fragment that it grew by."""
    rng = np.random.default_rng(0)
    replay = SequenceReplayBuffer(capacity=100, seed=0)
    at = {f"0-{lane}": 0 for lane in range(3)}
    restarted = 0
    for _ in range(300):
        name = str(rng.choice(list(at), p=[0.1, 0.3, 0.6]))
        steps, done = int(rng.integers(1, 20)), bool(rng.random() < 0.2)
        replay.add([fragment(name, at[name], steps, done=done)])
        at[name] += steps
        if done:
            number, lane = name.split("-")
            at = {
                (f"{int(number) + 1}-{lane}" if key == name else key): 0 if key == name else t for key, t in at.items()
            }
        held = [len(episode) for episode in replay.episodes]
        assert replay.get_num_timesteps() == sum(held) == len(replay._indices)
        assert sum(held) <= 100 or len(held) == 1
        assert set(replay._indices) == {
            (replay._num_episodes_evicted + e, t) for e, length in enumerate(held) for t in range(length)
        }
        restarted += sum(episode.t_started > 0 for episode in replay.episodes)
        for sequence in replay.sample_sequences(4, length=5, burn_in=2):
            shown = sequence.get_observations()
            np.testing.assert_array_equal(shown, sequence.t_started + np.arange(len(shown)))
            np.testing.assert_array_equal(sequence.get_actions(), shown[:-1])
            assert sequence.get_extra_model_outputs(LEARNED).any()
    assert restarted  # an unfinished episode was evicted and went on


class Asked:
    """A judge whose rewards are all 5; it fails after so many requests."""

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
    assert "stored rewards stay as their own judges gave them" in caplog.text
