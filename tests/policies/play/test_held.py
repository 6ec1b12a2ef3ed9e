"""Held actions: what an agent decides and sees, and that each step between is recorded."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule

from policies.play.acting import learned
from policies.play.held import STEPS, HeldEnv
from tests.policies.toys import SIZE, ShowsAction


def played(length: int, hold: int, actions: list[int]) -> list[tuple[Any, ...]]:
    env = HeldEnv(ShowsAction({"length": length, "game_reward": 2.0, "terminates": True}), hold, record=True)
    results: list[tuple[Any, ...]] = [env.reset(seed=0)]
    return results + [env.step(np.int64(action)) for action in actions]


def test_an_action_is_held_and_every_step_recorded() -> None:
    (shown, info), first, second = played(length=6, hold=4, actions=[2, 3])
    assert shown.shape == (SIZE, SIZE, 6)
    assert (info[STEPS].first, len(info[STEPS].frames), len(info[STEPS].rewards)) == (0, 1, 0)
    observation, reward, terminated, truncated, info = first
    assert (reward, terminated, truncated) == (8.0, False, False)
    steps = info[STEPS]
    assert steps.first == 0
    assert steps.frames[:, 0, 0, :2].tolist() == [[150, 1], [150, 2], [150, 3], [150, 4]]
    assert steps.rewards.tolist() == [2.0] * 4
    assert [each["score"] for each in steps.infos] == [2.0, 4.0, 6.0, 8.0]
    assert np.array_equal(observation, np.concatenate(steps.frames[-2:], axis=-1))
    # The episode ends in the middle of the second decision.
    observation, reward, terminated, _, info = second
    assert (reward, terminated, info[STEPS].first, len(info[STEPS].frames)) == (4.0, True, 4, 2)


def test_the_frames_shown_reach_back_to_the_decision_before() -> None:
    _, (first, *_), (second, *_) = played(length=20, hold=1, actions=[0, 1])
    assert np.array_equal(second[..., :3], first[..., 3:])


class Decides(TorchRLModule):
    """Chooses the action that the older of the two frames shows; holds it for three steps."""

    hold, shown_frames = 3, 2

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        shown_B = batch[Columns.OBS][:, 0, 0, 0].long()
        return {Columns.ACTIONS: shown_B, Columns.ACTION_LOGP: torch.full(shown_B.shape, -0.5)}


def test_acting_holds_and_shows_frames_as_in_training() -> None:
    module = Decides(
        observation_space=gym.spaces.Box(0, 255, (2, 2, 6), np.uint8), action_space=gym.spaces.Discrete(256)
    )
    act = learned(module)
    answers = [act(np.full((2, 2, 3), step, np.uint8), 0.0) for step in range(8)]
    assert answers == [(0, -0.5), (0, 0.0), (0, 0.0), (2, -0.5), (2, 0.0), (2, 0.0), (5, -0.5), (5, 0.0)]
