"""The actor-critic loss on replayed sequences: V-trace(λ) returns and masked means.

Espeholt et al. 2018 (IMPALA, 1802.01561, section 4.1), with traces shortened by λ (remark 2), which RLlib's V-trace
does not offer. On-policy, the advantages are those of GAE(λ).

Axis letters: B sequences, T steps, S = T + 1 observations (the last one only bootstraps).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class VTrace(NamedTuple):
    """Targets and advantages [B, T], without gradients; zero where masked."""

    targets_BT: Tensor
    advantages_BT: Tensor
    rhos_BT: Tensor  # unclipped importance ratios π / μ


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
        log_probs_BT: log π(a_t | x_t) of the actions taken, under the policy that learns.
        behaviour_log_probs_BT: log μ(a_t | x_t), under the policy that acted.
        rewards_BT: r_t, of the transition from x_t to x_{t+1}.
        discounts_BT: γ, or 0 where the transition ended the episode.
        values_BS: V(x_0) … V(x_T). Where a row is shorter than T its valid part is followed by its own bootstrap value.
        mask_BT: True on valid steps; a row's valid steps come first.
        lambda_: λ in [0, 1]; 1 is plain V-trace.
        rho_clip: ρ̄, the largest importance ratio that counts in full; traces are cut at 1.
    """
    mask_BT = mask_BT.to(values_BS.dtype)
    rhos_BT = torch.exp(log_probs_BT - behaviour_log_probs_BT)
    clipped_BT = rhos_BT.clamp(max=rho_clip)
    traces_BT = lambda_ * rhos_BT.clamp(max=1.0)
    values_BT, next_values_BT = values_BS[:, :-1], values_BS[:, 1:]
    deltas_BT = mask_BT * clipped_BT * (rewards_BT + discounts_BT * next_values_BT - values_BT)

    # corrections_BS[:, t] = target_t − V(x_t); a sequence's last one is zero: there the value itself bootstraps.
    corrections_BS = torch.zeros_like(values_BS)
    for t in reversed(range(deltas_BT.shape[1])):
        carried = discounts_BT[:, t] * traces_BT[:, t] * corrections_BS[:, t + 1]
        corrections_BS[:, t] = deltas_BT[:, t] + mask_BT[:, t] * carried

    # The λ-mixture of the next target and the next value, as in GAE(λ).
    next_returns_BT = next_values_BT + lambda_ * corrections_BS[:, 1:]
    advantages_BT = clipped_BT * (rewards_BT + discounts_BT * next_returns_BT - values_BT)
    return VTrace((values_BT + corrections_BS[:, :-1]) * mask_BT, advantages_BT * mask_BT, rhos_BT)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x over the places where the mask is True; padding counts for nothing. 0 if there is none."""
    return torch.where(mask, x, 0.0).sum() / mask.sum().clamp(min=1)


class LossTerms(NamedTuple):
    """Means over the valid steps."""

    policy: Tensor
    value: Tensor
    entropy: Tensor


def actor_critic_terms(
    *, logits_BTA: Tensor, actions_BT: Tensor, values_BT: Tensor, returns: VTrace, mask_BT: Tensor
) -> LossTerms:
    """Policy gradient with the log-probabilities of the actions *taken*, half squared value error, entropy (nats)."""
    log_probs_BTA = torch.log_softmax(logits_BTA, dim=-1)
    log_probs_BT = log_probs_BTA.gather(-1, actions_BT.unsqueeze(-1)).squeeze(-1)
    entropy_BT = -(log_probs_BTA.exp() * log_probs_BTA).sum(-1)
    return LossTerms(
        policy=-masked_mean(log_probs_BT * returns.advantages_BT, mask_BT),
        value=0.5 * masked_mean((values_BT - returns.targets_BT) ** 2, mask_BT),
        entropy=masked_mean(entropy_BT, mask_BT),
    )
