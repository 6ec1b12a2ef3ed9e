"""Curiosity by disagreement: the variance of an ensemble's predictions.

Heads with different initial weights learn online, from the same data, to predict what follows. On familiar data they
agree, even on the mean of noise; elsewhere they differ (Pathak et al. 2019, 1906.04161; Sekar et al. 2020,
Plan2Explore, 2005.05960, whose ensemble predicts from a world model's features, as this one does).

Axis letters: S heads, B batch, N positions in a frame, E features, C dimensions of a target.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.baselines.config import DisagreementConfig
from policies.baselines.online import OnlineLearner


class DisagreementEnsemble(OnlineLearner):
    """S two-layer heads: features [..., E] → predicted targets [S, ..., C]."""

    def __init__(self, config: DisagreementConfig, *, features: int, targets: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.norm = nn.LayerNorm(features, elementwise_affine=False)
            self.heads = nn.ModuleList(
                nn.Sequential(nn.Linear(features, config.hidden), nn.GELU(), nn.Linear(config.hidden, targets))
                for _ in range(config.heads)
            )
        self.updates = 0
        self.optimizer = torch.optim.Adam(self.parameters(), lr=config.learning_rate)

    def forward(self, features_BNE: Tensor) -> Tensor:
        """Each head's prediction, [S, B, N, C]."""
        features_BNE = self.norm(features_BNE.float())
        return torch.stack([head(features_BNE) for head in self.heads])

    @torch.no_grad()
    def disagreement(self, features_BNE: Tensor) -> Tensor:
        """Variance over the heads (unbiased), mean over a target's dimensions: [B, N]."""
        return self(features_BNE).var(dim=0).mean(dim=-1)

    def learn(self, features_BNE: Tensor, targets_BNC: Tensor) -> float:
        """One Adam step towards the targets; returns the mean squared error before it."""
        predictions_SBNC = self(features_BNE)
        loss = F.mse_loss(predictions_SBNC, targets_BNC.float().expand_as(predictions_SBNC))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.updates += 1
        return float(loss.detach())
