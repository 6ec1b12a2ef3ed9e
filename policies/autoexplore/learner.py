"""AutoExplore's learner: RLlib's gradient step around the loss of `losses.py`.

Axis letters: B sequences, T steps, S = T + 1 observations (the last one only bootstraps), A actions.
"""

from typing import TYPE_CHECKING, Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from policies.autoexplore.losses import actor_critic_terms, masked_mean, vtrace

if TYPE_CHECKING:
    from policies.autoexplore.algorithm import AutoExploreConfig


class AutoExploreLearner(TorchLearner):
    """V-trace(λ) actor-critic on sequences whose first `burn_in` steps only warm up the LSTM state."""

    def compute_loss_for_module(
        self, *, module_id: str, config: "AutoExploreConfig", batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        learning = config.learning
        mask_BT = batch[Columns.LOSS_MASK][:, :-1]
        actions_BT = batch[Columns.ACTIONS][:, :-1].long()
        logits_BTA = fwd_out[Columns.ACTION_DIST_INPUTS][:, :-1]
        values_BS = self.module[module_id].unwrapped().compute_values(batch, embeddings=fwd_out[Columns.EMBEDDINGS])

        log_probs_BTA = torch.log_softmax(logits_BTA, dim=-1)
        returns = vtrace(
            log_probs_BT=log_probs_BTA.gather(-1, actions_BT.unsqueeze(-1)).squeeze(-1),
            behaviour_log_probs_BT=batch[Columns.ACTION_LOGP][:, :-1],
            rewards_BT=batch[Columns.REWARDS][:, :-1],
            discounts_BT=learning.gamma * (1 - batch[Columns.TERMINATEDS][:, :-1].float()),
            values_BS=values_BS,
            mask_BT=mask_BT,
            lambda_=learning.lambda_,
            rho_clip=learning.rho_clip,
        )
        learned_BT = mask_BT.clone()
        learned_BT[:, : learning.burn_in] = False
        terms = actor_critic_terms(
            logits_BTA=logits_BTA,
            actions_BT=actions_BT,
            values_BT=values_BS[:, :-1],
            returns=returns,
            mask_BT=learned_BT,
        )
        loss = terms.policy + learning.value_weight * terms.value - learning.entropy_weight * terms.entropy
        self.metrics.log_dict(
            {
                "policy_loss": terms.policy.item(),
                "value_loss": terms.value.item(),
                "entropy": terms.entropy.item(),
                "rho": masked_mean(returns.rhos_BT, learned_BT).item(),
                "value": masked_mean(values_BS[:, :-1].detach(), learned_BT).item(),
            },
            key=module_id,
            window=learning.updates_per_epoch,
        )
        return loss
