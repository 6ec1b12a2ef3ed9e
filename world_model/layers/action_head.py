"""Inverse dynamics: which action led from one frame's tokens to the next frame's.

As an auxiliary loss for a world model: if the action cannot be told from a predicted frame, the model ignored it. The
head itself learns from true frames only, so that the two cannot agree on a sign of their own.

Axes: B batch, T frames, H W token grid, N = H·W, K codes, M hidden positions, F pairs of frames, C channels, A actions.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

CODE_CHANNELS, CHANNELS = 16, 64


class ActionHead(nn.Module):
    """Two frames, each as shares of codes → logits of the action between them."""

    def __init__(self, grid: tuple[int, int], codes: int, actions: int) -> None:
        super().__init__()
        self.codes_KC = nn.Parameter(torch.randn(codes, CODE_CHANNELS))
        self.network = nn.Sequential(
            nn.Conv2d(2 * CODE_CHANNELS, CHANNELS, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(CHANNELS * grid[0] * grid[1], actions),
        )

    def forward(self, before_FHW: Tensor, after_FHWC: Tensor) -> Tensor:
        """Tokens of the frames, int64, and code vectors of the next ones → logits [F, A]."""
        pairs_FHWC = torch.cat([F.embedding(before_FHW, self.codes_KC), after_FHWC], dim=-1)
        return self.network(rearrange(pairs_FHWC, "f h w c -> f c h w"))

    def losses(
        self,
        tokens_BTHW: Tensor,
        actions_BT: Tensor,
        mask_BTHW: Tensor,
        logits_MK: Tensor,
        told_B: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the actions, between true frames and between true and predicted ones.

        The first trains this head alone, the second the predictor alone, by the codes that it expects. Only frames
        that were hidden completely count there.

        Args:
            tokens_BTHW: int64, T frames.
            actions_BT: int64 [B, T−1].
            mask_BTHW: bool [B, T−1, H, W]; which tokens of frames 1..T−1 were hidden.
            logits_MK: their logits, in the order of the mask.
            told_B: bool [B]; the clips whose actions the predictor was told. Only their predictions are asked for them.
        """
        before_BTHW, after_BTHW = tokens_BTHW[:, :-1], tokens_BTHW[:, 1:]
        true_FHWC = F.embedding(after_BTHW.flatten(0, 1), self.codes_KC)
        own = F.cross_entropy(self(before_BTHW.flatten(0, 1), true_FHWC), actions_BT.flatten())
        empty_BT = mask_BTHW.all(dim=(2, 3))
        if told_B is not None:
            empty_BT = empty_BT & told_B[:, None]
        probs_XK = logits_MK[empty_BT[:, :, None, None].expand_as(mask_BTHW)[mask_BTHW]].float().softmax(dim=-1)
        expected_FHWC = rearrange(
            probs_XK @ self.codes_KC.detach(), "(f h w) c -> f h w c", h=mask_BTHW.shape[2], w=mask_BTHW.shape[3]
        )
        frozen = {name: weight.detach() for name, weight in self.named_parameters()}
        logits_FA = torch.func.functional_call(self, frozen, (before_BTHW[empty_BT], expected_FHWC))
        summed = F.cross_entropy(logits_FA, actions_BT[empty_BT], reduction="sum")
        return own, summed / max(len(logits_FA), 1)
