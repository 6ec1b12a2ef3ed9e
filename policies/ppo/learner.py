"""PPO's learner: RLlib's, with what must be known of a policy that may not learn at all.

Axis letters: B batch, A actions.
"""

import math
from typing import Any

import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

from policies.cpu import prepare_learner

EXPLAINED_VARIANCE = "explained_variance"


class PPOLearner(PPOTorchLearner):
    """Logs how far the policy is from uniform, how much of that depends on the frame, and what the critic explains."""

    def build(self) -> None:
        super().build()
        prepare_learner(self)
        assert self._learner_connector is not None
        self._learner_connector.append(ExplainedVariance())

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        loss = super().compute_loss_for_module(module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)
        mask_B = batch[Columns.LOSS_MASK]
        log_probs_BA = torch.log_softmax(fwd_out[Columns.ACTION_DIST_INPUTS].detach()[mask_B], dim=-1)
        actions_B = batch[Columns.ACTIONS][mask_B].long()
        taken_B = log_probs_BA.gather(-1, actions_B.unsqueeze(-1)).squeeze(-1)
        self.metrics.log_dict(
            policy_figures(log_probs_BA)
            | {"kl_of_epoch": (batch[Columns.ACTION_LOGP][mask_B] - taken_B).mean().item()},
            key=module_id,
            window=1,
        )
        return loss


def policy_figures(log_probs_BA: Tensor) -> dict[str, float]:
    """How much a policy has made up its mind, in nats.

    Returns:
        uniform_kl: mean KL divergence of the policy from the uniform one.
        prior_kl: that of the mean policy, so the part that is alike in all states.
        state_information: the rest, which depends on the state: the mutual information of state and action.
    """
    probs_BA = log_probs_BA.exp()
    uniform = math.log(log_probs_BA.shape[-1])
    kl = uniform + torch.special.xlogy(probs_BA, probs_BA).sum(-1).mean()
    mean_A = probs_BA.mean(0)
    prior = uniform + torch.special.xlogy(mean_A, mean_A).sum()
    return {"uniform_kl": kl.item(), "prior_kl": prior.item(), "state_information": (kl - prior).item()}


class ExplainedVariance(ConnectorV2):
    """Logs 1 − Var(target − V) / Var(target) of values predicted before the update. Comes after RLlib's GAE."""

    def __call__(self, *, rl_module: Any, batch: dict[str, Any], metrics: Any = None, **kwargs: Any) -> dict[str, Any]:
        for module_id, columns in batch.items():
            if metrics is not None and Postprocessing.VALUE_TARGETS in columns:
                with torch.no_grad():
                    values_B = rl_module[module_id].unwrapped().compute_values(columns)
                mask_B = columns[Columns.LOSS_MASK]
                targets_B = columns[Postprocessing.VALUE_TARGETS][mask_B]
                explained = 1 - (targets_B - values_B[mask_B]).var() / targets_B.var().clamp(min=1e-8)
                metrics.log_value((module_id, EXPLAINED_VARIANCE), explained.item(), window=1)
        return batch
