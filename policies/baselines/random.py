"""The random policy: uniform over the actions, blind to the frames. What every explorer has to beat."""

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from policies.exploration import sample_actions


class RandomModule(TorchRLModule):
    """Draws actions from torch's global generator (seed it for reproducible play) and reports their log-probability."""

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Draws actions [count] int64 and their log-probabilities [count], without any frame."""
        actions = int(self.action_space.n)
        return sample_actions(torch.full((count, actions), 1 / actions).log())

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        actions_B, log_probs_B = self.draw(len(batch[Columns.OBS]))
        return {Columns.ACTIONS: actions_B, Columns.ACTION_LOGP: log_probs_B}
