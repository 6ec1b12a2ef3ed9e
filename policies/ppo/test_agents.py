"""PPO on the game's own reward: RLlib's stock algorithm with our network, which makes agents for test sets.

Their play gets further than random, and is mixed with random actions (Savov et al. 2025, section 5, who use Agent57).
"""

from typing import Any

import numpy as np
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns

from policies.ppo.algorithm import apply_settings
from policies.ppo.config import PPOSettings


class SignOfRewards(ConnectorV2):
    """Learner connector: rewards are −1, 0 or 1 (Mnih et al. 2015), so that one setting fits games of any score."""

    def __call__(self, *, batch: dict[str, Any], episodes: list[Any], **kwargs: Any) -> dict[str, Any]:
        for episode in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
            rewards = np.sign(episode.get_rewards(slice(0, len(episode))))
            self.add_n_batch_items(batch, Columns.REWARDS, rewards, len(episode), episode)
        return batch


def ppo_config(env_name: str, env_config: dict[str, Any], settings: PPOSettings | None = None) -> PPOConfig:
    """RLlib's PPO on a registered environment, a `HeldEnv` with discrete actions.

    Args:
        env_name: name under which the environment is registered with Ray Tune.
        env_config: passed to its creator.
        settings: sizes.
    """
    config = (
        PPOConfig()
        .environment(env_name, env_config=env_config)
        .env_runners(num_env_runners=0, gym_env_vectorize_mode="async")
        .learners(learner_connector=lambda *args: SignOfRewards())
    )
    apply_settings(config, settings or PPOSettings())
    return config
