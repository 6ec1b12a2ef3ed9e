"""How an agent's family of policies is laid out: how much novelty each arm seeks, how far it looks, how random it acts.

Arm 0 exploits, the last arm explores most. NGU: Badia et al. 2020a (2002.06038, appendix A). Agent57: Badia et al.
2020b (2003.13350, appendix G.1), whose printed ladder of discounts has two slips, see `agent57_gammas`.
"""

import math

import numpy as np

HIGH = 7  # arms of Agent57's ladder with discounts above γ_1


def betas(arms: int, largest: float) -> np.ndarray:
    """β_j [arms], the weight of the intrinsic reward: from 0 to `largest` along a sigmoid."""
    if arms == 1:
        return np.zeros(1)
    steps = np.arange(arms)
    ladder = largest * _sigmoid(10 * (2 * steps - (arms - 2)) / max(arms - 2, 1))
    ladder[0], ladder[-1] = 0.0, largest
    return ladder


def ngu_gammas(arms: int, largest: float, smallest: float) -> np.ndarray:
    """γ_j [arms]: 1 − γ grows geometrically from that of `largest` (arm 0) to that of `smallest` (last arm)."""
    if arms == 1:
        return np.array([largest])
    share = np.arange(arms) / (arms - 1)
    return 1 - np.exp((1 - share) * math.log(1 - largest) + share * math.log(1 - smallest))


def agent57_gammas(arms: int, largest: float, middle: float, smallest: float) -> np.ndarray:
    """γ_j [arms] of Agent57: from `largest` to `middle` over seven arms along a sigmoid, then as NGU to `smallest`.

    As printed, the first part is not monotone, and the second ends at 0.99997 instead of `smallest`: here the sigmoid
    runs downwards, and the last logarithm is weighted by the steps that remain.

    Raises:
        ValueError: fewer arms than that.
    """
    if arms < HIGH + 2:
        raise ValueError(f"arms is {arms}; allowed: {HIGH + 2} or more for this ladder, or `gammas: ngu`")
    upwards = HIGH - np.arange(1, HIGH)
    high = middle + (largest - middle) * _sigmoid(10 * (2 * upwards - 6) / 6)
    return np.concatenate([[largest], high, [middle], ngu_gammas(arms - HIGH - 1, middle, smallest)])


def epsilons(slots: int, base: float, alpha: float) -> np.ndarray:
    """ε_l [slots] of the environments: base^(1 + α·l / (slots − 1)) (Horgan et al. 2018, section 4)."""
    return base ** (1 + alpha * np.arange(slots) / max(slots - 1, 1))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))
