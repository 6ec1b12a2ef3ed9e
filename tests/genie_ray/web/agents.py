"""Agents with random weights, as `genie-ray explore` leaves trained ones."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from policies.ppo.config import PPOSettings
from policies.ppo.module import PPOModule
from policies.saved import save_policy


def save_agent(directory: Path, size: int = 64) -> None:
    """One with seven actions, whose weights are large enough for its choice to depend on the frame."""
    torch.manual_seed(0)
    module = PPOModule(
        observation_space=gym.spaces.Box(0, 255, (size, size, 6), np.uint8),
        action_space=gym.spaces.Discrete(7),
        model_config={"settings": PPOSettings(hold=2, hidden=16)},
    )
    torch.nn.init.normal_(module.policy.weight, std=3)
    save_policy(module, directory)
