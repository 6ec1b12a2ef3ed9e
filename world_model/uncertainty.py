"""Uncertainty of a world model, the basis of the exploration reward.

Source: GenieRedux-G (Savov et al., CVPR 2025, arXiv 2504.02515, eqs. 2–4): the model is given 2 frames and the 4
actions since; it predicts 3 frames in one decoding step, and the entropies of the last frame's token distributions
are its uncertainty.

Axes: B batch, N tokens of a frame, K codes.
"""

import math

from torch import Tensor

PRIME_FRAMES = 2  # given, eq. 2
PREDICTED_FRAMES = 3  # the last one is judged, eq. 2


def token_entropy(logits_BNK: Tensor) -> Tensor:
    """Entropy of each token's distribution, divided by log K, in [0, 1]: [B, N, K] → u_BN (eq. 3)."""
    log_probs_BNK = logits_BNK.float().log_softmax(dim=-1)
    entropy_BN = -log_probs_BNK.exp().mul_(log_probs_BNK).sum(dim=-1)
    return entropy_BN / math.log(logits_BNK.shape[-1])


def top_k_mean(uncertainty_BN: Tensor, fraction: float) -> Tensor:
    """Mean of the largest ⌊fraction · N⌋ entries, at least one: [B, N] → [B] (eq. 4).

    Raises ValueError unless 0 < fraction ≤ 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"top-k fraction is {fraction}, allowed: above 0 up to 1")
    count = max(1, int(fraction * uncertainty_BN.shape[-1]))
    return uncertainty_BN.topk(count, dim=-1).values.mean(dim=-1)
