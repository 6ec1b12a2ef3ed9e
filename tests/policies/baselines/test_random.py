"""Random play."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from policies.baselines.random import RandomModule


def test_random_module_is_uniform_and_seeded() -> None:
    module = RandomModule(
        observation_space=gym.spaces.Box(0, 255, (16, 16, 3), np.uint8),
        action_space=gym.spaces.Discrete(4),
        model_config={},
    )
    torch.manual_seed(3)
    frames = {Columns.OBS: torch.zeros(8000, 16, 16, 3, dtype=torch.uint8)}
    out = module.forward_exploration(frames)
    torch.testing.assert_close(torch.bincount(out[Columns.ACTIONS]) / 8000, torch.full((4,), 0.25), atol=0.02, rtol=0)
    assert out[Columns.ACTION_LOGP].unique().tolist() == [pytest.approx(math.log(0.25))]
    torch.manual_seed(3)
    again = module.forward_exploration(frames)
    torch.testing.assert_close(again[Columns.ACTIONS], out[Columns.ACTIONS])


def test_weighted_actions_are_as_frequent_as_their_weights() -> None:
    module = RandomModule(
        observation_space=gym.spaces.Box(0, 255, (16, 16, 3), np.uint8),
        action_space=gym.spaces.Discrete(3),
        model_config={"weights": [1.0, 6.0, 3.0]},
    )
    torch.manual_seed(3)
    actions, log_probs = module.draw(8000)
    shares = torch.tensor([0.1, 0.6, 0.3])
    torch.testing.assert_close(torch.bincount(actions) / 8000, shares, atol=0.02, rtol=0)
    torch.testing.assert_close(log_probs, shares.log()[actions])
