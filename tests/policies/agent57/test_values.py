"""The transform of values, Retrace by hand and by its explicit sum, the split of values, priorities."""

import numpy as np
import pytest
import torch

from policies.agent57.values import (
    greedy_mixture,
    inverse_transform,
    one_step_errors,
    priorities,
    retrace_targets,
    transform,
)

H = 1e-3


def test_transform_and_its_inverse() -> None:
    x = torch.tensor([1.0, 10, 100, 1e4], dtype=torch.float64)
    assert transform(x, H).tolist() == pytest.approx([0.41521356, 2.32662479, 9.14987562, 109.0049999], abs=1e-7)
    assert inverse_transform(torch.tensor(0.01), H).item() == pytest.approx(0.020059, abs=5e-7)
    sizes = torch.logspace(-4, 6, 400, dtype=torch.float64)
    both = torch.cat([sizes, -sizes])
    assert torch.allclose(inverse_transform(transform(both, H), H), both, rtol=1e-6)
    small = torch.logspace(-6, 0, 100)
    assert torch.allclose(inverse_transform(transform(small, H), H), small, rtol=3e-6)


Q = torch.tensor([[1.0, 0], [2, 4], [3, 1]]).view(1, 3, 1, 2)


def by_hand(actions: list[int], mu: list[float], *, ended: bool = False, target: torch.Tensor = Q) -> list[float]:
    """Retrace targets of two steps with rewards 1 and 10, γ 0.5, λ 0.95, and a greedy policy."""
    policy = greedy_mixture(target, 0.0)
    taken = torch.tensor(actions).view(1, 2, 1, 1)
    pi = policy[:, :2].gather(-1, taken).squeeze(-1)
    targets = retrace_targets(
        expected_BSN=(policy * target).sum(-1),
        taken_BTN=target[:, :2].gather(-1, taken).squeeze(-1),
        traces_BTN=0.95 * (pi / torch.tensor(mu).view(1, 2, 1)).clamp(max=1.0),
        rewards_BT=torch.tensor([[1.0, 10]]),
        discounts_BTN=torch.tensor([0.5, 0.0 if ended else 0.5]).view(1, 2, 1),
        mask_BT=torch.ones(1, 2, dtype=torch.bool),
    )
    return targets.flatten().tolist()


def test_retrace_by_hand() -> None:
    assert by_hand([0, 1], [1.0, 1.0]) == pytest.approx([6.5625, 11.5])
    assert by_hand([0, 0], [1.0, 0.5]) == pytest.approx([3.0, 11.5])  # not the policy's action: the trace is cut
    # An end does not bootstrap: 10, then 1 + 0.5 · (4 + 0.95 · (10 − 4)).
    assert by_hand([0, 1], [1.0, 1.0], ended=True) == pytest.approx([5.85, 10.0])


def test_retrace_is_the_sum_of_traced_errors() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    rows, steps, arms, actions = 3, 6, 2, 4
    q, policy = draw(rows, steps + 1, arms, actions), torch.softmax(draw(rows, steps + 1, arms, actions), -1)
    taken = torch.randint(actions, (rows, steps, 1, 1), generator=generator).expand(-1, -1, arms, 1)
    traces, rewards, discounts = 0.95 * draw(rows, steps, arms), draw(rows, steps), draw(rows, steps, arms)
    discounts[1, 3] = 0
    values, q_taken = (policy * q).sum(-1), q[:, :-1].gather(-1, taken).squeeze(-1)
    targets = retrace_targets(
        expected_BSN=values,
        taken_BTN=q_taken,
        traces_BTN=traces,
        rewards_BT=rewards,
        discounts_BTN=discounts,
        mask_BT=torch.ones(rows, steps, dtype=torch.bool),
    )
    errors = rewards[..., None] + discounts * values[:, 1:] - q_taken
    for t in range(steps):
        total, weight = q_taken[:, t].clone(), torch.ones(rows, arms, dtype=torch.float64)
        for s in range(t, steps):
            total += weight * errors[:, s]
            if s + 1 < steps:
                weight = weight * discounts[:, s] * traces[:, s + 1]
        assert torch.allclose(targets[:, t], total, atol=1e-12)
    untraced = retrace_targets(
        expected_BSN=values,
        taken_BTN=q_taken,
        traces_BTN=torch.zeros_like(traces),
        rewards_BT=rewards,
        discounts_BTN=discounts,
        mask_BT=torch.ones(rows, steps, dtype=torch.bool),
    )
    assert torch.allclose(untraced, rewards[..., None] + discounts * values[:, 1:])


def test_what_stands_in_the_padding_has_no_effect() -> None:
    def targets(fill: float) -> torch.Tensor:
        expected = torch.tensor([1.0, 2, 3, fill]).view(1, 4, 1)  # row of two valid steps, V of the third frame
        padded = torch.tensor([0.5, 0.25, fill]).view(1, 3, 1)
        return retrace_targets(
            expected_BSN=expected,
            taken_BTN=padded,
            traces_BTN=padded,
            rewards_BT=padded[..., 0],
            discounts_BTN=padded,
            mask_BT=torch.tensor([[True, True, False]]),
        )

    assert torch.equal(targets(0.0), targets(float("nan")))


def test_the_split_adds_up_under_a_shared_policy_only() -> None:
    """Two values, each of its reward, are that of both together, if the greedy action is that of their sum."""
    rng = np.random.default_rng(0)
    states, actions, gamma, beta = 6, 3, 0.9, 0.3
    moves = rng.dirichlet(np.ones(states), size=(states, actions))
    extrinsic, intrinsic = rng.normal(size=(2, states, actions))

    def iterate(own: bool) -> float:
        whole, first, second = np.zeros((3, states, actions))
        worst = 0.0
        for _ in range(300):
            shared = (first + beta * second).argmax(1)
            rows = np.arange(states)
            best = [first.argmax(1), second.argmax(1)] if own else [shared, shared]
            whole = extrinsic + beta * intrinsic + gamma * moves @ whole[rows, whole.argmax(1)]
            first = extrinsic + gamma * moves @ first[rows, best[0]]
            second = intrinsic + gamma * moves @ second[rows, best[1]]
            worst = max(worst, np.abs(whole - first - beta * second).max())
        return worst

    assert iterate(own=False) < 1e-12
    assert iterate(own=True) > 0.1


def test_errors_of_one_step_by_hand() -> None:
    """γ = 0.5; the third step's 0.5 · V is unknown, or 0 after an end. With ε = 0, h(x) = √(x + 1) − 1."""
    taken, expected, rewards = torch.tensor([[1.0, 2, 3], [9, 14, 4], [1, 6, 0]])
    ended, going_on = (
        one_step_errors(taken, expected, rewards, gamma=0.5, terminated=end, epsilon=0.0).tolist()
        for end in (True, False)
    )
    assert ended == pytest.approx([2 - 1, 2 - 2, 0 - 3])  # h(1 + 7) = 2, h(6 + 2) = 2, h(0) = 0
    assert going_on[:2] == ended[:2]
    assert np.isnan(going_on[2])


def test_priorities() -> None:
    errors = torch.tensor([[1.0, -3, 2], [1, -3, 100]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    assert priorities(errors, mask, 0.9).tolist() == pytest.approx([2.9, 0.9 * 3 + 0.1 * 2])


def test_epsilon_greedy_probabilities() -> None:
    probs = greedy_mixture(torch.tensor([0.0, 2, 1, 0, 0]), torch.tensor(0.4))
    assert probs.tolist() == pytest.approx([0.08, 0.68, 0.08, 0.08, 0.08])
