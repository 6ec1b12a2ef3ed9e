"""The random policy: blind to the frames, uniform over the actions unless weighted. What every explorer has to beat."""

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import Tensor

from policies.exploration import sample_actions


class RandomModule(TorchRLModule):
    """Draws actions from torch's global generator (seed it for reproducible play) and reports their log-probability.

    `model_config["weights"]`, a positive number per action, makes some more frequent; without it all are equally so.
    """

    def setup(self) -> None:
        weights = self.model_config.get("weights") or [1.0] * int(self.action_space.n)
        self._log_probs_A = torch.tensor(weights).div(sum(weights)).log()

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """Draws actions [count] int64 and their log-probabilities [count], without any frame."""
        return sample_actions(self._log_probs_A.expand(count, -1))

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        actions_B, log_probs_B = self.draw(len(batch[Columns.OBS]))
        return {Columns.ACTIONS: actions_B, Columns.ACTION_LOGP: log_probs_B}
