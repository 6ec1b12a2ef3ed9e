"""AutoExplore's learner: RLlib's gradient step around the loss of `losses.py`.

Axis letters: B sequences, T steps, S = T + 1 observations (the last one only bootstraps), A actions.
"""

from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from torch import Tensor

from policies.autoexplore.losses import LossTerms, VTrace, actor_critic_terms, kl_divergence, masked_mean, vtrace
from policies.cpu import prepare_learner
from policies.replay import LEARNED


class AutoExploreLearner(TorchLearner):
    """V-trace(λ) actor-critic on sequences of which some steps only warm up the LSTM state."""

    def build(self) -> None:
        super().build()
        prepare_learner(self)
        self._earlier_weights: dict[str, Tensor] | None = None  # from one epoch ago

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
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
            # Rewards are centred: the value 0 after the end of an episode stands for average play.
            discounts_BT=learning.gamma * (1 - batch[Columns.TERMINATEDS][:, :-1].float()),
            values_BS=values_BS,
            mask_BT=mask_BT,
            lambda_=learning.lambda_,
            rho_clip=learning.rho_clip,
        )
        learned_BT = mask_BT & batch[LEARNED][:, :-1].bool()
        terms = actor_critic_terms(
            logits_BTA=logits_BTA,
            actions_BT=actions_BT,
            values_BT=values_BS[:, :-1],
            returns=returns,
            mask_BT=learned_BT,
        )
        self._log(module_id, learning.updates_per_epoch, terms, returns, values_BS[:, :-1], learned_BT)
        if self._weights_seq_no % learning.updates_per_epoch == 0:
            self._log_change(module_id, batch, logits_BTA, learned_BT)
        return (
            terms.policy
            + learning.value_weight * terms.value
            - learning.entropy_weight * terms.entropy
            + learning.prior_weight * terms.prior
        )

    def _log(
        self, module_id: str, window: int, terms: LossTerms, returns: VTrace, values_BT: Tensor, mask_BT: Tensor
    ) -> None:
        """Logs the loss and the importance ratios; ratios far from 1 mean the replay is too old to learn from."""
        log_rhos_BT = returns.rhos_BT.log()
        self.metrics.log_dict(
            {
                "policy_loss": terms.policy.item(),
                "value_loss": terms.value.item(),
                "entropy": terms.entropy.item(),
                "prior_kl": terms.prior.item(),
                "value": masked_mean(values_BT.detach(), mask_BT).item(),
                "rho": masked_mean(returns.rhos_BT, mask_BT).item(),
                "rho_clipped_share": masked_mean((returns.rhos_BT > 1).float(), mask_BT).item(),
                "rho_log_spread": masked_mean(log_rhos_BT**2, mask_BT).sqrt().item(),
            },
            key=module_id,
            window=window,
        )

    @torch.no_grad()
    def _log_change(self, module_id: str, batch: dict[str, Any], logits_BTA: Tensor, mask_BT: Tensor) -> None:
        """Logs how far the policy has moved in the last epoch, on this batch's states: KL(now ‖ then) in nats."""
        module = self.module[module_id].unwrapped()
        if self._earlier_weights is not None:
            then = torch.func.functional_call(module, self._earlier_weights, (batch,))
            kl = kl_divergence(logits_BTA, then[Columns.ACTION_DIST_INPUTS][:, :-1], mask_BT)
            self.metrics.log_value((module_id, "kl_of_epoch"), kl.item(), window=1)
        self._earlier_weights = {name: weight.clone() for name, weight in module.state_dict().items()}
