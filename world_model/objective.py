"""What the dynamics are trained for: which tokens are hidden, which are replaced, and how predictions are scored.

Decoding asks for a frame of which nothing is known, given a complete past. Training should show the same: a mask that
hides all frames alike, as published, never does, and what remains visible of a frame gives away what the action did.

Sources: MaskGIT (Chang et al., 2022, arXiv 2202.04200), Genie (Bruce et al., 2024, arXiv 2402.15391, Sec. 2.1), for
masks by frame with a complete past MAGI (Zhou et al., 2025, arXiv 2501.12389), for token distance (TDCE) GenieRedux-G
(Savov et al., CVPR 2025, arXiv 2504.02515, Sec. 3).
Axes: B batch, T frames, H W token grid, M hidden positions, K codes, C dimensions of a code.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Masking = Literal["clip", "frame", "paired"]
MASK_PROBABILITY = (0.5, 1.0)  # of "clip", drawn per batch, uniformly; Genie, Sec. 2.1
EMPTY_SHARE = 0.5  # of frames that are hidden completely, in the others; ours


def draw_mask(tokens_BTHW: Tensor, masking: Masking, generator: torch.Generator | None = None) -> Tensor:
    """Which of the tokens to predict are hidden, bool [B, T, H, W].

    "clip": all with the same probability, drawn per batch from [0.5, 1].

    "paired", for predicting each frame from a complete past: half of the frames are hidden completely, the others at a
    rate cos(π/2 · u) each, u uniform in [0, 1).

    "frame", for predicting a clip as it stands: a frame is drawn for each clip. Earlier frames are visible, it is
    hidden as in "paired", and later ones at a rate cos(π/2 · u) each.
    """

    def uniform(*size: int) -> Tensor:
        return torch.rand(size, generator=generator, device=tokens_BTHW.device)

    if masking == "clip":
        low, high = MASK_PROBABILITY
        probability = low + (high - low) * uniform()
        return uniform(*tokens_BTHW.shape) < probability
    clips, frames = tokens_BTHW.shape[:2]
    rate_BT = torch.cos(math.pi / 2 * uniform(clips, frames))
    empty_BT = uniform(clips, frames) < EMPTY_SHARE
    if masking == "frame":
        number_T = torch.arange(frames, device=tokens_BTHW.device)
        drawn_B1 = (uniform(clips, 1) * frames).long()
        empty_BT = empty_BT & (number_T == drawn_B1)
        rate_BT = rate_BT.masked_fill(number_T < drawn_B1, 0.0)
    return uniform(*tokens_BTHW.shape) < rate_BT.masked_fill(empty_BT, 1.0)[:, :, None, None]


def replace_some(tokens_BTHW: Tensor, most: float, codes: int, generator: torch.Generator | None = None) -> Tensor:
    """The tokens with a share of each frame's replaced by random ones; the shares are uniform in [0, `most`).

    Wrongly decoded frames look alike, so a model that has seen such a past drifts less.
    """
    if not most:
        return tokens_BTHW
    device, frames = tokens_BTHW.device, tokens_BTHW.shape[:2]
    share_BT = torch.rand(frames, generator=generator, device=device) * most
    replaced_BTHW = torch.rand(tokens_BTHW.shape, generator=generator, device=device) < share_BT[:, :, None, None]
    random_BTHW = torch.randint(codes, tokens_BTHW.shape, generator=generator, device=device)
    return torch.where(replaced_BTHW, random_BTHW, tokens_BTHW)


def hide_past(tokens_BTHW: Tensor, share: float, hidden: int, generator: torch.Generator | None = None) -> Tensor:
    """The tokens with all frames from a random one on, never the first, replaced by `hidden` in a share of the clips.

    What one-go decoding asks for, and a reward query (eq. 2 of the CVPR paper): a frame after frames that are unknown.
    """
    if not share:
        return tokens_BTHW
    clips, frames = tokens_BTHW.shape[:2]
    drawn_B1, first_B1 = torch.rand((2, clips, 1), generator=generator, device=tokens_BTHW.device)
    number_T = torch.arange(frames, device=tokens_BTHW.device)
    hidden_BT = (drawn_B1 < share) & (number_T >= 1 + (first_B1 * (frames - 1)).long())
    return tokens_BTHW.masked_fill(hidden_BT[:, :, None, None], hidden)


class DynamicsOutput(NamedTuple):
    """Result of a training pass."""

    loss: Tensor  # scalar: cross-entropy + λ · token distance
    metrics: dict[str, Tensor]  # scalars without gradient


def token_loss(
    logits_MK: Tensor,
    targets_M: Tensor,
    changed_M: Tensor,
    *,
    distance_vectors_KC: Tensor,
    tdce_weight: float,
    changed_weight: float,
) -> DynamicsOutput:
    """Cross-entropy + λ · token distance.

    Args:
        logits_MK: of the hidden tokens.
        targets_M: the true ones, int64.
        changed_M: whether they differ from the last frame's at the same place.
        distance_vectors_KC: `Tokenizer.distance_vectors()`.
        tdce_weight: λ.
        changed_weight: in the cross-entropy's mean, a changed token weighs 1 + this; ours, after Δ-IRIS (Micheli et
            al., 2024, arXiv 2406.19320), which codes changes only.
    """
    log_probs_MK = logits_MK.float().log_softmax(dim=-1)
    target_log_probs_M = log_probs_MK.gather(-1, targets_M[:, None])[:, 0]
    cross_entropy = loss = -target_log_probs_M.mean()
    if changed_weight:
        weights_M = 1 + changed_weight * changed_M.float()
        loss = -(weights_M * target_log_probs_M).sum() / weights_M.sum()
    with torch.set_grad_enabled(torch.is_grad_enabled() and tdce_weight > 0):
        token_distance = expected_code_distance(log_probs_MK.exp(), targets_M, distance_vectors_KC).mean()
    if tdce_weight:
        loss = loss + tdce_weight * token_distance
    metrics = {
        "loss": loss.detach(),
        "cross_entropy": cross_entropy.detach(),
        "token_distance": token_distance.detach(),
        "accuracy": (target_log_probs_M == log_probs_MK.amax(dim=-1)).float().mean(),
    }
    return DynamicsOutput(loss, metrics)


def expected_code_distance(probs_MK: Tensor, targets_M: Tensor, vectors_KC: Tensor) -> Tensor:
    """Σ_k p_mk · |v_k − v_target|², [M] (TDCE; CVPR paper, Sec. 3), with `Tokenizer.distance_vectors()`.

    The square makes it linear in the moments Σ p·v and Σ p·|v|², so no K×K table is needed.
    """
    with torch.autocast(probs_MK.device.type, enabled=False):  # in bf16 a token would have a distance from itself
        vectors_KC = vectors_KC.float()
        squares_K, targets_MC = vectors_KC.square().sum(dim=-1), vectors_KC[targets_M]
        mixed_M = ((probs_MK @ vectors_KC) * targets_MC).sum(dim=-1)
        return probs_MK @ squares_K - 2 * mixed_M + squares_K[targets_M]
