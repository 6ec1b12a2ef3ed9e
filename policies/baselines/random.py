"""The random policy: uniform over the actions, blind to the frames. What every explorer has to beat."""

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule

from policies.exploration import sample_actions


class RandomModule(TorchRLModule):
    """Draws actions from torch's global generator (seed it for reproducible play) and reports their log-probability."""

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        count = int(self.action_space.n)
        uniform_BA = torch.full((len(batch[Columns.OBS]), count), 1 / count)
        actions_B, log_probs_B = sample_actions(uniform_BA.log())
        return {Columns.ACTIONS: actions_B, Columns.ACTION_LOGP: log_probs_B}
