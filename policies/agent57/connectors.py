"""What the policy sees beside its frame: its arm and ε, the step before, and how new the frame is to its episode."""

from typing import Any

import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2

from policies.agent57.module import ARM, EPSILON, LAST_ACTION, LAST_INTRINSIC, LAST_REWARD, Agent57Module
from policies.agent57.novelty import Curiosity


class PlayInputs(ConnectorV2):
    """Connector from environment to module. An episode's `custom_data` has its `ARM` and its `EPSILON`.

    RLlib runs it once for each new frame of every environment, also for those that end an episode.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.curiosity = Curiosity()

    def __call__(self, *, rl_module: Any, batch: dict[str, Any], episodes: list[Any], **kwargs: Any) -> dict[str, Any]:
        assert isinstance(rl_module, Agent57Module)
        running = list(self.single_agent_episode_iterator(episodes))
        intrinsic = [0.0] * len(running)
        if rl_module.novelty is not None:
            names, begins = [episode.id_ for episode in running], [episode.t == 0 for episode in running]
            frames = np.stack([episode.get_observations(-1) for episode in running])
            intrinsic = self.curiosity.step(names, begins, frames, rl_module.novelty)
        for episode, reward in zip(running, intrinsic, strict=True):
            begins_here = episode.t == 0
            columns = {
                ARM: np.int64(episode.custom_data[ARM]),
                EPSILON: np.float32(episode.custom_data[EPSILON]),
                LAST_ACTION: np.int64(-1 if begins_here else episode.get_actions(-1)),
                LAST_REWARD: np.float32(0.0 if begins_here else episode.get_rewards(-1)),
                LAST_INTRINSIC: np.float32(reward),
            }
            for column, value in columns.items():
                self.add_batch_item(batch, column, value, single_agent_episode=episode)
        return batch
