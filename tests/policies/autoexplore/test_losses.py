"""V-trace(λ) and the actor-critic loss against slow loops, RLlib and hand-calculated numbers."""

import math

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.impala.torch.vtrace_torch_v2 import vtrace_torch
from torch import Tensor

from policies.autoexplore.losses import VTrace, actor_critic_terms, kl_divergence, masked_mean, vtrace

B, T = 5, 7


def batch(seed: int = 0) -> dict[str, Tensor]:
    """Random sequences of lengths 7, 6, 5, 4 and 1; some transitions end their episode."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    lengths = torch.tensor([7, 6, 5, 4, 1])
    mask = torch.arange(T) < lengths[:, None]
    discounts = torch.full((B, T), 0.9, dtype=torch.float64)
    discounts[1, 5] = discounts[3, 3] = 0
    return {
        "log_probs_BT": -normal(B, T).abs(),
        "behaviour_log_probs_BT": -normal(B, T).abs(),
        "rewards_BT": normal(B, T),
        "discounts_BT": discounts,
        "values_BS": normal(B, T + 1),
        "mask_BT": mask,
    }


def slow_vtrace(row: dict[str, np.ndarray], length: int, lambda_: float, rho_clip: float) -> tuple[list, list]:
    """The definition of Espeholt et al. 2018, eq. 1, as written there: a sum of products over all later steps."""
    rhos = np.exp(row["log_probs_BT"] - row["behaviour_log_probs_BT"])
    values, rewards, discounts = row["values_BS"], row["rewards_BT"], row["discounts_BT"]
    targets = []
    for s in range(length):
        target = values[s]
        for t in range(s, length):
            traces = math.prod(discounts[i] * lambda_ * min(1, rhos[i]) for i in range(s, t))
            delta = min(rho_clip, rhos[t]) * (rewards[t] + discounts[t] * values[t + 1] - values[t])
            target += traces * delta
        targets.append(target)
    returns = [*targets, values[length]]
    advantages = [
        min(rho_clip, rhos[s])
        * (rewards[s] + discounts[s] * (lambda_ * returns[s + 1] + (1 - lambda_) * values[s + 1]) - values[s])
        for s in range(length)
    ]
    return targets, advantages


@pytest.mark.parametrize(("lambda_", "rho_clip"), [(1.0, 1.0), (0.95, 1.0), (0.5, 2.0), (0.0, 1.0)])
def test_vtrace_is_its_definition(lambda_: float, rho_clip: float) -> None:
    data = batch()
    result = vtrace(**data, lambda_=lambda_, rho_clip=rho_clip)
    for b in range(B):
        row = {name: tensor[b].numpy() for name, tensor in data.items()}
        length = int(data["mask_BT"][b].sum())
        targets, advantages = slow_vtrace(row, length, lambda_, rho_clip)
        np.testing.assert_allclose(result.targets_BT[b, :length], targets, atol=1e-12)
        np.testing.assert_allclose(result.advantages_BT[b, :length], advantages, atol=1e-12)
        assert not result.targets_BT[b, length:].any()
        assert not result.advantages_BT[b, length:].any()


def test_plain_vtrace_is_rllibs() -> None:
    data = batch() | {"mask_BT": torch.ones(B, T, dtype=torch.bool)}
    ours = vtrace(**data, lambda_=1.0, rho_clip=1.0)
    targets_TB, advantages_TB = vtrace_torch(
        target_action_log_probs=data["log_probs_BT"].T,
        behaviour_action_log_probs=data["behaviour_log_probs_BT"].T,
        discounts=data["discounts_BT"].T,
        rewards=data["rewards_BT"].T,
        values=data["values_BS"][:, :-1].T,
        bootstrap_values=data["values_BS"][:, -1],
    )
    torch.testing.assert_close(ours.targets_BT, targets_TB.T)
    torch.testing.assert_close(ours.advantages_BT, advantages_TB.T)


def test_on_policy_advantages_are_gae() -> None:
    data = batch()
    data["behaviour_log_probs_BT"] = data["log_probs_BT"]
    ours = vtrace(**data, lambda_=0.95, rho_clip=1.0)
    for b in range(B):
        advantage = 0.0
        for t in reversed(range(int(data["mask_BT"][b].sum()))):
            discount = data["discounts_BT"][b, t]
            delta = data["rewards_BT"][b, t] + discount * data["values_BS"][b, t + 1] - data["values_BS"][b, t]
            advantage = delta + discount * 0.95 * advantage
            assert ours.advantages_BT[b, t].item() == pytest.approx(float(advantage))


def test_padding_changes_nothing() -> None:
    data = batch()
    expected = vtrace(**data, lambda_=0.95, rho_clip=1.0)
    padded = ~data["mask_BT"]
    spoilt = {name: data[name].clone() for name in data}
    for name in ("log_probs_BT", "behaviour_log_probs_BT", "rewards_BT", "discounts_BT"):
        spoilt[name][padded] = math.nan
    # The value right after a row's last step is its bootstrap; those further on are padding.
    spoilt["values_BS"][:, 1:][padded] = math.inf
    result = vtrace(**spoilt, lambda_=0.95, rho_clip=1.0)
    torch.testing.assert_close(result.targets_BT, expected.targets_BT)
    torch.testing.assert_close(result.advantages_BT, expected.advantages_BT)


def test_the_end_of_an_episode_does_not_bootstrap_but_a_cut_does() -> None:
    one = torch.ones(1, 1)
    step = {"log_probs_BT": -one, "behaviour_log_probs_BT": -one, "rewards_BT": one, "mask_BT": one.bool()}
    values_BS = torch.tensor([[0.0, 10.0]])
    cut = vtrace(**step, discounts_BT=0.9 * one, values_BS=values_BS, lambda_=0.95, rho_clip=1.0)
    end = vtrace(**step, discounts_BT=0.0 * one, values_BS=values_BS, lambda_=0.95, rho_clip=1.0)
    assert cut.targets_BT.item() == pytest.approx(1 + 0.9 * 10)
    assert end.targets_BT.item() == pytest.approx(1)


def test_loss_terms_by_hand() -> None:
    logits_BTA = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.2, 0.2, 0.6], [1 / 3, 1 / 3, 1 / 3]]]))
    mask_BT = torch.tensor([[True, True, False]])
    returns = VTrace(
        targets_BT=torch.tensor([[1.0, 0.0, 7.0]]), advantages_BT=torch.tensor([[2.0, -1.0, 9.0]]), rhos_BT=mask_BT
    )
    terms = actor_critic_terms(
        logits_BTA=logits_BTA,
        actions_BT=torch.tensor([[1, 2, 0]]),
        values_BT=torch.tensor([[3.0, 1.0, 0.0]]),
        returns=returns,
        mask_BT=mask_BT,
    )
    assert terms.policy.item() == pytest.approx(-(2 * math.log(0.25) - math.log(0.6)) / 2)
    assert terms.value.item() == pytest.approx(0.5 * (2**2 + 1**2) / 2)
    entropies = (1.5 * math.log(2), -(0.4 * math.log(0.2) + 0.6 * math.log(0.6)))
    assert terms.entropy.item() == pytest.approx(sum(entropies) / 2)
    mean = (0.35, 0.225, 0.425)  # of the policy over the two valid states
    assert terms.prior.item() == pytest.approx(sum(p * math.log(3 * p) for p in mean), rel=1e-4)


def test_the_prior_lets_a_policy_be_sure_if_it_is_not_always_of_the_same() -> None:
    mask_BT, zeros_BT = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2)
    returns = VTrace(zeros_BT, zeros_BT, zeros_BT)
    rest = {"actions_BT": zeros_BT.long(), "values_BT": zeros_BT, "returns": returns, "mask_BT": mask_BT}
    varied, same = torch.tensor([[[100.0, 0], [0, 100]]]), torch.tensor([[[100.0, 0], [100, 0]]])
    assert actor_critic_terms(logits_BTA=varied, **rest).prior.item() == pytest.approx(0, abs=1e-6)
    assert actor_critic_terms(logits_BTA=same, **rest).prior.item() == pytest.approx(math.log(2))


def test_kl_divergence_is_its_definition_on_valid_steps() -> None:
    ours, theirs = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.2, 0.2, 0.6])
    logits, others = ours.log().expand(1, 2, 3), theirs.log().expand(1, 2, 3).clone()
    others[0, 1] = math.nan
    kl = kl_divergence(logits, others, torch.tensor([[True, False]])).item()
    assert kl == pytest.approx(0.5 * math.log(0.5 / 0.2) + 0.25 * math.log(0.25 / 0.2) + 0.25 * math.log(0.25 / 0.6))


@pytest.mark.parametrize("own_actions", [True, False])
def test_policy_gradient_needs_the_actions_that_earned_the_rewards(own_actions: bool) -> None:
    """A bandit that rewards action 2: the gradient points to it, and nowhere if the actions are redrawn."""
    generator = torch.Generator().manual_seed(0)
    shape = (2000, 1)
    taken_BT, drawn_BT = (torch.randint(4, shape, generator=generator) for _ in range(2))
    bias_A = torch.zeros(4, requires_grad=True)
    mask_BT, uniform_BT = torch.ones(shape, dtype=torch.bool), torch.full(shape, math.log(1 / 4))
    returns = vtrace(
        log_probs_BT=uniform_BT,
        behaviour_log_probs_BT=uniform_BT,
        rewards_BT=(taken_BT == 2).float() - 1 / 4,
        discounts_BT=torch.zeros(shape),
        values_BS=torch.zeros(2000, 2),
        mask_BT=mask_BT,
        lambda_=0.95,
        rho_clip=1.0,
    )
    terms = actor_critic_terms(
        logits_BTA=bias_A.expand(*shape, 4),
        actions_BT=taken_BT if own_actions else drawn_BT,
        values_BT=torch.zeros(shape),
        returns=returns,
        mask_BT=mask_BT,
    )
    (gradient_A,) = torch.autograd.grad(-terms.policy, bias_A)
    # E[advantage · (1[a = k] − 1/4)] = P(a = 2) · (1[k = 2] − 1/4); the standard error is below 0.01.
    expected_A = torch.tensor([-1, -1, 3, -1]) / 16 if own_actions else torch.zeros(4)
    torch.testing.assert_close(gradient_A, expected_A, atol=0.03, rtol=0)


def test_masked_mean_of_nothing_is_zero_and_ignores_nan() -> None:
    x = torch.tensor([1.0, 3.0, math.nan])
    assert masked_mean(x, torch.tensor([True, True, False])).item() == 2
    assert masked_mean(x, torch.zeros(3, dtype=torch.bool)).item() == 0
