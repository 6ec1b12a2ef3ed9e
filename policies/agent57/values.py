"""Values: their transform, the mix of two rewards, Retrace targets, and the priorities of sequences.

Axis letters: B sequences, T steps, S = T + 1 observations (the last one only bootstraps), N arms, A actions.
"""

import torch
from torch import Tensor


def transform(x: Tensor, epsilon: float) -> Tensor:
    """h(x) = sgn(x)·(√(|x| + 1) − 1) + εx (Pohlen et al. 2018), written so that small x keep their digits."""
    return x.sign() * x.abs() / ((x.abs() + 1).sqrt() + 1) + epsilon * x


def inverse_transform(x: Tensor, epsilon: float) -> Tensor:
    """h⁻¹(x), exact in float32.

    As it is usually written, sgn(x)·(((√(1 + 4ε(|x| + 1 + ε)) − 1) / 2ε)² − 1), it subtracts nearly equal numbers: at
    x = 0.0001 it is off by 6 %.
    """
    size = x.abs()
    root = (1 + 4 * epsilon * (size + 1 + epsilon)).sqrt()
    part = size * (2 - 4 * epsilon / (root + 1 + 2 * epsilon)) / (root + 1)
    return x.sign() * part * (part + 2)


def greedy_mixture(values_A: Tensor, epsilon: float | Tensor) -> Tensor:
    """Probabilities [..., A] of the ε-greedy policy on values [..., A]; `epsilon` is a number or [...]."""
    share = torch.as_tensor(epsilon, dtype=values_A.dtype, device=values_A.device).unsqueeze(-1)
    greedy = torch.nn.functional.one_hot(values_A.argmax(-1), values_A.shape[-1]).to(values_A.dtype)
    return (1 - share) * greedy + share / values_A.shape[-1]


def retrace_targets(
    *,
    expected_BSN: Tensor,
    taken_BTN: Tensor,
    traces_BTN: Tensor,
    rewards_BT: Tensor,
    discounts_BTN: Tensor,
    mask_BT: Tensor,
) -> Tensor:
    """Retrace targets [B, T, N] (Munos et al. 2016), for several arms at once.

    G_t = r_t + γ_t · (V(x_{t+1}) + c_{t+1} · (G_{t+1} − Q(x_{t+1}, a_{t+1}))); after the last step, V bootstraps.

    Args:
        expected_BSN: V(x_t) = Σ_a π(a | x_t) Q(x_t, a). In a row shorter than T, it follows the row's valid part.
        taken_BTN: Q(x_t, a_t).
        traces_BTN: c_t, e.g. λ · min(1, π(a_t | x_t) / μ(a_t | x_t)).
        rewards_BT: r_t, of the transition from x_t to x_{t+1}.
        discounts_BTN: γ, or 0 where the transition ended the episode.
        mask_BT: True on valid steps; a row's valid steps come first. Values elsewhere have no effect, not even NaN.
    """
    steps = mask_BT.shape[1]
    targets_BTN = torch.zeros_like(taken_BTN)
    correction_BN = torch.zeros_like(taken_BTN[:, 0])  # c · (G − Q) of the following step
    for t in reversed(range(steps)):
        following_BN = expected_BSN[:, t + 1] + correction_BN
        target_BN = rewards_BT[:, t, None] + discounts_BTN[:, t] * following_BN
        valid_B1 = mask_BT[:, t, None]
        targets_BTN[:, t] = torch.where(valid_B1, target_BN, 0.0)
        correction_BN = torch.where(valid_B1, traces_BTN[:, t] * (target_BN - taken_BTN[:, t]), 0.0)
    return targets_BTN


def one_step_errors(
    taken_T: Tensor, expected_T: Tensor, rewards_T: Tensor, *, gamma: float, terminated: bool, epsilon: float
) -> Tensor:
    """h(r_t + γ · V(x_{t+1})) − Q(x_t, a_t) [T] of consecutive steps, with what acting knew.

    Args:
        taken_T: Q(x_t, a_t), transformed.
        expected_T: V(x_t), not transformed.
        rewards_T: r_t.
        gamma: the discount.
        terminated: whether the last step ended the episode; else its error is NaN, as V of the frame after it is
            unknown.
        epsilon: of the transform.
    """
    following_T = torch.cat([expected_T[1:], torch.full_like(expected_T[:1], 0.0 if terminated else torch.nan)])
    return transform(rewards_T + gamma * following_T, epsilon) - taken_T


def priorities(errors_BT: Tensor, mask_BT: Tensor, largest_share: float) -> Tensor:
    """η · max|δ| + (1 − η) · mean|δ| [B] of each sequence's valid steps (Kapturowski et al. 2019, section 2.3)."""
    sizes_BT = torch.where(mask_BT, errors_BT.abs(), 0.0)
    mean_B = sizes_BT.sum(1) / mask_BT.sum(1).clamp(min=1)
    return largest_share * sizes_BT.amax(1) + (1 - largest_share) * mean_B
