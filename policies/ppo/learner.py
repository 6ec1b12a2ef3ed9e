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
PAID_FOR_ENDING = "advantage_of_steps_left"


class PPOLearner(PPOTorchLearner):
    """Logs how far the policy is from uniform, how much of that depends on the frame, and what the critic explains."""

    def build(self) -> None:
        super().build()
        prepare_learner(self)
        assert self._learner_connector is not None
        self._learner_connector.append(JudgedAdvantages())

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


class JudgedAdvantages(ConnectorV2):
    """Standardises advantages over real steps only, and logs what they and the values before the update are like.

    Comes after RLlib's GAE, which has added a step to each piece of an episode and counts it in.

    explained_variance       1 − Var(target − V) / Var(target)
    advantage_of_steps_left  correlation of the advantages with the steps that are left in their piece, each discounted
                             as in GAE. Where pieces end by death, far below 0 says that ending pays, far above 0 that
                             going on does. It does not say why.
    """

    def __call__(self, *, rl_module: Any, batch: dict[str, Any], metrics: Any = None, **kwargs: Any) -> dict[str, Any]:
        for module_id, columns in batch.items():
            if Postprocessing.VALUE_TARGETS not in columns:
                continue
            mask_B = columns[Columns.LOSS_MASK]
            advantages_B = columns[Postprocessing.ADVANTAGES]
            real_B = advantages_B[mask_B]
            columns[Postprocessing.ADVANTAGES] = (advantages_B - real_B.mean()) / real_B.std().clamp(min=1e-4)
            if metrics is None:
                continue
            with torch.no_grad():
                module = rl_module[module_id].unwrapped()
                errors_B = columns[Postprocessing.VALUE_TARGETS] - module.compute_values(columns)
            spread = columns[Postprocessing.VALUE_TARGETS][mask_B].var().clamp(min=1e-8)
            left_B = discounted_steps_left(mask_B, module.settings.gamma * module.settings.lambda_)[mask_B]
            figures = {
                EXPLAINED_VARIANCE: 1 - (errors_B[mask_B].var() / spread).item(),
                PAID_FOR_ENDING: torch.corrcoef(torch.stack([real_B, left_B]))[0, 1].nan_to_num().item(),
            }
            metrics.log_dict(figures, key=module_id, window=1)
        return batch


def discounted_steps_left(mask_B: Tensor, discount: float) -> Tensor:
    """Σ discountⁱ over the steps left in each step's piece, itself included; pieces end where the mask is False."""
    left, sums = 0.0, []
    for real in reversed(mask_B.tolist()):
        left = 1 + discount * left if real else 0.0
        sums.append(left)
    return torch.tensor(sums[::-1], device=mask_B.device)
