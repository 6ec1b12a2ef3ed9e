"""How much a world model's prediction depends on the action, seen long before any decoded picture shows it.

The last frame of a clip is hidden completely, its past is given, and the likelihood of its true tokens is compared
under the true action and under every other one. Only tokens that changed since the frame before count.

The measures are ours; for next-frame prediction given a complete past see MAGI (arXiv 2501.12389), for ΔPSNR, which
needs decoded frames, Genie (Bruce et al., 2024, arXiv 2402.15391, Sec. 3).
Axes: B batch, T frames, A actions, H W pixels in `frames_BTHWC`, C colour channels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from world_model.cached import CachedPredictor
from world_model.genie import GenieReduxG


class ActionLikelihoods(NamedTuple):
    """How well the last frame's changed tokens are predicted under each action."""

    nll_BA: Tensor  # negative log-likelihood of a clip's changed tokens, summed, in nats
    changed_B: Tensor  # how many tokens changed

    def control(self, actions_B: Tensor) -> dict[str, Tensor]:
        """Control over the clips whose frame changed, given the true last actions int64 [B]; {} without such a clip.

        nll_changed: nats per changed token under the true action. nll_gap: how many more the other actions need, on
        average. action_accuracy: share of clips in which the true action has the highest likelihood; chance is 1/A.
        action_rank: its mean rank among all actions, from 1 (likeliest) to A; by chance (A + 1) / 2.
        """
        moved_B, changed = self.changed_B > 0, self.changed_B.sum()
        if not moved_B.any():
            return {}
        true_B1 = self.nll_BA.gather(1, actions_B[:, None])
        return {
            "nll_changed": true_B1[moved_B].sum() / changed,
            "nll_gap": self.gaps(actions_B)[moved_B].sum() / changed,
            "action_accuracy": (self.nll_BA.argmin(dim=1) == actions_B)[moved_B].float().mean(),
            "action_rank": 1 + (self.nll_BA < true_B1)[moved_B].float().sum(dim=1).mean(),
        }

    def gaps(self, actions_B: Tensor) -> Tensor:
        """How many more nats the other actions need than the true one, on average, for each clip's changed tokens."""
        true_B = self.nll_BA.gather(1, actions_B[:, None])[:, 0]
        return (self.nll_BA.sum(dim=1) - true_B) / (self.nll_BA.shape[1] - 1) - true_B


@torch.no_grad()
def prediction_errors(model: GenieReduxG, frames_BTHWC: Tensor, actions_BT: Tensor) -> ActionLikelihoods:
    """Likelihood of all frames of clips but the first, each given all before it, under the actions that were taken.

    Args:
        model: the world model.
        frames_BTHWC: uint8, at least two frames.
        actions_BT: int64 [B, T−1], the actions between them.

    Returns:
        Sums over the frames' changed tokens; `nll_BA` has one column.
    """
    tokens_BTHW = model.tokenizer.encode(frames_BTHWC)
    changed_BTHW = tokens_BTHW[:, 1:] != tokens_BTHW[:, :-1]
    predict = CachedPredictor(model.dynamics, model.tokenizer.token_vectors(), actions_BT)
    nll_BT = []
    for frame in range(1, tokens_BTHW.shape[1]):
        asked_BTHW = tokens_BTHW[:, : frame + 1].clone()
        asked_BTHW[:, frame] = model.dynamics.mask_token
        logits_B1HWK = predict(asked_BTHW, frame)
        nll_BT.append(_changed_nll(logits_B1HWK[:, 0], tokens_BTHW[:, frame], changed_BTHW[:, frame - 1]))
    return ActionLikelihoods(torch.stack(nll_BT).sum(dim=0)[:, None], changed_BTHW.sum(dim=(1, 2, 3)))


@torch.no_grad()
def action_likelihoods(model: GenieReduxG, frames_BTHWC: Tensor, actions_BT: Tensor) -> ActionLikelihoods:
    """Likelihood of the last frame of clips under each possible last action.

    Args:
        model: the world model.
        frames_BTHWC: uint8, at least two frames.
        actions_BT: int64 [B, T−1], the actions between them; the last one is not used.
    """
    tokens_BTHW = model.tokenizer.encode(frames_BTHWC)
    past_BTHW, targets_BHW = tokens_BTHW[:, :-1], tokens_BTHW[:, -1]
    changed_BHW = targets_BHW != past_BTHW[:, -1]
    asked_BTHW = torch.cat([past_BTHW, torch.full_like(targets_BHW[:, None], model.dynamics.mask_token)], dim=1)
    last, vectors_KD = past_BTHW.shape[1], model.tokenizer.token_vectors()
    aligned = model.dynamics.config.alignment == "aligned"
    predict = CachedPredictor(model.dynamics, vectors_KD, actions_BT)
    nll_BA = []
    for action in range(model.num_actions):
        given_BT = torch.cat([actions_BT[:, :-1], torch.full_like(actions_BT[:, -1:], action)], dim=1)
        if aligned:  # the past is the same for all actions, and computed once
            predict.replace_actions(given_BT)
            logits_B1HWK = predict(asked_BTHW, last)
        else:
            logits_B1HWK = model.dynamics(asked_BTHW, given_BT, vectors_KD, first=last)
        nll_BA.append(_changed_nll(logits_B1HWK[:, 0], targets_BHW, changed_BHW))
    return ActionLikelihoods(torch.stack(nll_BA, dim=1), changed_BHW.sum(dim=(1, 2)))


def _changed_nll(logits_BHWK: Tensor, targets_BHW: Tensor, changed_BHW: Tensor) -> Tensor:
    nll_BHW = F.cross_entropy(logits_BHWK.float().movedim(-1, 1), targets_BHW, reduction="none")
    return (nll_BHW * changed_BHW).sum(dim=(1, 2))
