"""Curiosity by disagreement: heads agree on what they have seen."""

import torch

from policies.baselines.config import DisagreementConfig
from policies.baselines.disagreement import DisagreementEnsemble


def test_disagreement_by_hand() -> None:
    """Heads that always predict 0 and 2 have an (unbiased) variance of 2."""
    ensemble = DisagreementEnsemble(DisagreementConfig(heads=2, hidden=4), features=3, targets=5)
    with torch.no_grad():
        for head, says in zip(ensemble.heads, (0.0, 2.0), strict=True):
            head[2].weight.zero_()
            head[2].bias.fill_(says)
    torch.testing.assert_close(ensemble.disagreement(torch.randn(2, 6, 3)), torch.full((2, 6), 2.0))


def test_heads_agree_where_they_have_been_also_about_noise() -> None:
    torch.manual_seed(0)
    ensemble = DisagreementEnsemble(DisagreementConfig(hidden=32, learning_rate=3e-3), features=8, targets=4)
    seen, unseen = torch.randn(64, 4, 8) + torch.tensor([3.0] + [0.0] * 7), -torch.randn(64, 4, 8).abs() * 3
    before = ensemble.disagreement(seen).mean()
    for _ in range(300):
        loss = ensemble.learn(seen, torch.randn(64, 4, 4))  # unpredictable targets
    assert loss > 0.8
    assert ensemble.disagreement(seen).mean() < before / 4
    assert ensemble.disagreement(unseen).mean() > 4 * ensemble.disagreement(seen).mean()
