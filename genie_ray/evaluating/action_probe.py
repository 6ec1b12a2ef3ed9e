"""How well latent actions predict the real ones: held-out probes beside the chance level.

A latent action model invents its own codes for what changes from one frame to the next (Genie, Bruce et al., 2024,
arXiv 2402.15391, Sec. 2.1). A probe is fitted on some episodes to predict the real actions from them, and tested on
others. The probes and their protocol are ours; the papers judge latent actions by eye.

Axes: N transitions, D width of a vector, A actions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Classifier = Callable[[Tensor], Tensor]  # inputs [N] or [N, D] → actions [N]
Fit = Callable[[Tensor, Tensor], Classifier]  # inputs, actions → a classifier
LOGISTIC_ITERATIONS = 100
PROBED_WINDOWS = 500  # per game, spread evenly; more would cost much memory and hardly change an accuracy


@dataclass(frozen=True)
class ActionProbe:
    """Shares of transitions whose real action was predicted, each in [0, 1]."""

    codes: float  # from the latent action: each code predicts the action that it most often occurred with
    vectors: float  # from the vectors before the codebook, by logistic regression: what the encoder saw
    chance: float  # by always predicting the most frequent action


class ProbeSamples:
    """Collects the transitions of windows, batch by batch."""

    def __init__(self) -> None:
        self._codes: list[Tensor] = []
        self._vectors: list[Tensor] = []
        self._actions: list[Tensor] = []
        self._episodes: list[str] = []

    def add(self, codes_BT: Tensor, vectors_BTD: Tensor, actions_BT: Tensor, episodes: Sequence[str]) -> None:
        """Adds windows; `episodes` has the episode of each."""
        self._codes.append(codes_BT.flatten())
        self._vectors.append(vectors_BTD.flatten(0, 1))
        self._actions.append(actions_BT.flatten())
        self._episodes += [episode for episode in episodes for _ in range(actions_BT.shape[1])]

    def merge(self, other: ProbeSamples) -> None:
        """Adds everything that another collection holds."""
        self._codes += other._codes
        self._vectors += other._vectors
        self._actions += other._actions
        self._episodes += other._episodes

    def probe(self) -> ActionProbe | None:
        """See `probe_actions`; None if nothing was collected."""
        if not self._episodes:
            return None
        return probe_actions(torch.cat(self._codes), torch.cat(self._vectors), torch.cat(self._actions), self._episodes)


def probe_actions(
    codes_N: Tensor, vectors_ND: Tensor, actions_N: Tensor, episodes: Sequence[str]
) -> ActionProbe | None:
    """Both probes, each fitted on one half of the episodes and tested on the other, both ways; None for one episode.

    Args:
        codes_N: int64 latent actions.
        vectors_ND: the vectors that were quantised to these codes.
        actions_N: int64 real actions.
        episodes: the episode of each transition; neighbours resemble each other, so an episode is never split.
    """
    _, episode_N = np.unique(np.asarray(episodes), return_inverse=True)
    if not episode_N.any():
        return None
    second_half_N = torch.from_numpy(episode_N % 2 == 1)
    return ActionProbe(
        codes=held_out_accuracy(fit_majority, codes_N, actions_N, second_half_N),
        vectors=held_out_accuracy(fit_logistic, vectors_ND, actions_N, second_half_N),
        chance=float(actions_N.bincount().max() / len(actions_N)),
    )


def held_out_accuracy(fit: Fit, inputs: Tensor, actions_N: Tensor, second_half_N: Tensor) -> float:
    """Share of all transitions predicted by a classifier that was fitted on the other half."""
    right = 0
    for asked_N in (second_half_N, ~second_half_N):
        classify = fit(inputs[~asked_N], actions_N[~asked_N])
        right += int((classify(inputs[asked_N]) == actions_N[asked_N]).sum())
    return right / len(actions_N)


def fit_majority(codes_N: Tensor, actions_N: Tensor) -> Classifier:
    """Predicts each code's most frequent action; for an unseen code, the most frequent action overall."""
    overall = actions_N.bincount().argmax()
    most_frequent = {int(code): actions_N[codes_N == code].bincount().argmax() for code in codes_N.unique()}
    return lambda codes_N: torch.stack([most_frequent.get(int(code), overall) for code in codes_N])


def fit_logistic(vectors_ND: Tensor, actions_N: Tensor) -> Classifier:
    """Multinomial logistic regression on standardised vectors, with the penalty |W|²/2 on the summed loss (C = 1)."""
    mean_D, scale_D = vectors_ND.double().mean(0), vectors_ND.double().std(0, correction=0).clamp(min=1e-6)

    def standardise(vectors_ND: Tensor) -> Tensor:
        return (vectors_ND.double() - mean_D) / scale_D

    inputs_ND, actions = standardise(vectors_ND), int(actions_N.max()) + 1
    weight_AD = torch.zeros(actions, inputs_ND.shape[1], dtype=torch.float64, requires_grad=True)
    bias_A = torch.zeros(actions, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight_AD, bias_A], max_iter=LOGISTIC_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits_NA = F.linear(inputs_ND, weight_AD, bias_A)
        value = F.cross_entropy(logits_NA, actions_N, reduction="sum") + 0.5 * weight_AD.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return lambda vectors_ND: F.linear(standardise(vectors_ND), weight_AD.detach(), bias_A.detach()).argmax(-1)
