"""The actor-critic loss on replayed sequences: V-trace(λ) returns and masked means.

Espeholt et al. 2018 (IMPALA, 1802.01561, section 4.1), with traces shortened by λ (remark 2), which RLlib's V-trace
does not offer. On-policy, the advantages are those of GAE(λ).

Axis letters: B sequences, T steps, S = T + 1 observations (the last one only bootstraps).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class VTrace(NamedTuple):
    """Targets and advantages [B, T], without gradients; zero where masked."""

    targets_BT: Tensor
    advantages_BT: Tensor
    rhos_BT: Tensor  # importance ratios π / μ before clipping


@torch.no_grad()
def vtrace(
    *,
    log_probs_BT: Tensor,
    behaviour_log_probs_BT: Tensor,
    rewards_BT: Tensor,
    discounts_BT: Tensor,
    values_BS: Tensor,
    mask_BT: Tensor,
    lambda_: float,
    rho_clip: float,
) -> VTrace:
    """V-trace(λ) targets of the value function and advantages of the policy.

    Args:
        log_probs_BT: log π(a_t | x_t) of the actions taken, under the current policy.
        behaviour_log_probs_BT: log μ(a_t | x_t), under the policy that acted.
        rewards_BT: r_t, of the transition from x_t to x_{t+1}.
        discounts_BT: γ, or 0 where the transition ended the episode.
        values_BS: V(x_0) … V(x_T). In a row shorter than T, its bootstrap value follows its valid part.
        mask_BT: True on valid steps; a row's valid steps come first. Values elsewhere have no effect, not even NaN.
        lambda_: λ in [0, 1]; 1 is plain V-trace.
        rho_clip: ρ̄, at which importance ratios are clipped; those in the traces are clipped at 1.
    """

    def valid(x_BT: Tensor) -> Tensor:
        return torch.where(mask_BT, x_BT, 0.0)

    rhos_BT = valid(torch.exp(log_probs_BT - behaviour_log_probs_BT))
    clipped_BT = rhos_BT.clamp(max=rho_clip)
    traces_BT = lambda_ * valid(discounts_BT) * rhos_BT.clamp(max=1.0)
    values_BT, next_values_BT = values_BS[:, :-1], values_BS[:, 1:]
    deltas_BT = valid(clipped_BT * (rewards_BT + discounts_BT * next_values_BT - values_BT))

    # corrections_BS[:, t] = target_t − V(x_t); a sequence's last one is zero: there the value itself bootstraps.
    corrections_BS = torch.zeros_like(values_BS)
    for t in reversed(range(deltas_BT.shape[1])):
        corrections_BS[:, t] = deltas_BT[:, t] + traces_BT[:, t] * corrections_BS[:, t + 1]

    # The λ-mixture of the next target and the next value, as in GAE(λ).
    next_returns_BT = next_values_BT + lambda_ * corrections_BS[:, 1:]
    advantages_BT = clipped_BT * (rewards_BT + discounts_BT * next_returns_BT - values_BT)
    return VTrace(valid(values_BT + corrections_BS[:, :-1]), valid(advantages_BT), rhos_BT)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x where the mask is True, so that padding has no effect; 0 if it is True nowhere."""
    return torch.where(mask, x, 0.0).sum() / mask.sum().clamp(min=1)


class LossTerms(NamedTuple):
    """Means over the valid steps."""

    policy: Tensor
    value: Tensor
    entropy: Tensor
    prior: Tensor


def actor_critic_terms(
    *, logits_BTA: Tensor, actions_BT: Tensor, values_BT: Tensor, returns: VTrace, mask_BT: Tensor
) -> LossTerms:
    """The terms of the loss; those of probabilities are in nats.

    Returns:
        policy: minus the log-probabilities of the actions *taken*, times their advantages.
        value: half the squared error.
        entropy: of the policy in each state.
        prior: KL divergence of the policy averaged over the states from the uniform policy. The entropy already
            covers each state's own divergence; this term lets a policy be certain in every state, as long as it does
            not choose the same action in all of them.
    """
    log_probs_BTA = torch.log_softmax(logits_BTA, dim=-1)
    log_probs_BT = log_probs_BTA.gather(-1, actions_BT.unsqueeze(-1)).squeeze(-1)
    entropy_BT = -(log_probs_BTA.exp() * log_probs_BTA).sum(-1)
    mean_A = torch.stack([masked_mean(probs_BT, mask_BT) for probs_BT in log_probs_BTA.exp().unbind(-1)])
    return LossTerms(
        policy=-masked_mean(log_probs_BT * returns.advantages_BT, mask_BT),
        value=0.5 * masked_mean((values_BT - returns.targets_BT) ** 2, mask_BT),
        entropy=masked_mean(entropy_BT, mask_BT),
        prior=torch.special.xlogy(mean_A, mean_A).sum() + math.log(len(mean_A)),
    )


def kl_divergence(logits_BTA: Tensor, other_logits_BTA: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean KL(π ‖ π′) over the valid steps, nats."""
    log_probs_BTA, other_BTA = torch.log_softmax(logits_BTA, dim=-1), torch.log_softmax(other_logits_BTA, dim=-1)
    return masked_mean((log_probs_BTA.exp() * (log_probs_BTA - other_BTA)).sum(-1), mask_BT)
