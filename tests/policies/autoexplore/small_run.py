"""A run of AutoExplore that takes seconds, on an environment whose frames show which action led to them."""

from dataclasses import replace
from typing import Any

import numpy as np
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.tune import register_env

from policies.autoexplore.algorithm import AutoExplore, AutoExploreConfig
from policies.autoexplore.config import AutoExploreLearningConfig, AutoExploreModuleConfig
from policies.rewards import RewardAnswer, RewardUnavailableError
from tests.policies.toys import ActionClient, ShowsAction

LEARNING = AutoExploreLearningConfig(
    num_envs=4,
    steps_per_epoch=40,
    fragment_length=20,
    updates_per_epoch=20,
    sequences_per_update=16,
    sequence_length=10,
    burn_in=2,
    learning_rate=3e-3,
    evaluation_every=2,
    evaluation_steps=10,
    entropy_weight=0.3,  # with less, noise alone would let one action take over
)


def config(*, updates: int = 20, client: Any = ActionClient, **env_config: Any) -> AutoExploreConfig:
    register_env("shows_action", ShowsAction)
    return (
        AutoExploreConfig()
        .environment("shows_action", env_config=env_config)
        .training(
            learning=replace(LEARNING, updates_per_epoch=updates),
            network=AutoExploreModuleConfig(channels=(8, 8), lstm_size=16),
            reward_client_factory=client,
        )
        .debugging(seed=0)
    )


def weights(algorithm: AutoExplore) -> dict[str, np.ndarray]:
    return algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID]


class Fails:
    def answer(self, timeout_s: float) -> RewardAnswer:
        raise RewardUnavailableError("the service restarts")
