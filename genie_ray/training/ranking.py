"""Ranked replay: episodes that the world model predicts badly, and still learns from, come more often.

Every so many iterations episodes are ranked anew by two measures, each as its rank among all episodes:

error      negative log-likelihood per changed token, each frame given the true frames before it
progress   how much the error fell since the last ranking

What no model can predict has a high error for ever but makes no progress, and what is learned has neither. After the
trajectory buffer of PROWL (Güzel et al., 2026, arXiv 2605.18803), which re-ranks by error, action fidelity and learning
progress; the groups and the even mean of the two ranks are ours.
Axes: B batch, T frames, H W C pixels, E episodes.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from genie_ray.replay.loading.mixture import ReplayMix
from genie_ray.replay.loading.windows import iter_sampled_windows
from genie_ray.training.config import RankingConfig
from world_model.checkpoint import Model
from world_model.control import prediction_errors
from world_model.genie import GenieReduxG

Floats = NDArray[np.float64]
SCORED_AT_ONCE = 16  # windows


class Ranking:
    """The episodes' last known errors, and the weights that follow from them.

    Args:
        config: how often and how strongly.
        replay: what is trained on.
        window: frames of a scored window.
        episodes: how many the training split has, in the order of `WindowLoader.weigh`.
        seed: of which episodes are scored where there are many.
    """

    def __init__(self, config: RankingConfig, replay: ReplayMix, *, window: int, episodes: int, seed: int) -> None:
        self._config, self._replay, self._window, self._seed = config, replay, window, seed
        self._errors_E = np.full(episodes, np.nan)
        self._progress_E = np.full(episodes, np.nan)

    def due(self, iteration: int) -> bool:
        """Whether to rank before this iteration."""
        return bool(self._config.every) and iteration % self._config.every == 0

    def update(
        self,
        model: Model,
        iteration: int,
        *,
        device: torch.device,
        autocast: contextlib.AbstractContextManager[Any],
        rank: int,
        world_size: int,
    ) -> list[float]:
        """Scores episodes with the model as it is, each rank its part, and returns all episodes' weights."""
        assert isinstance(model, GenieReduxG)
        rng = np.random.default_rng((self._seed, iteration))
        scored = np.sort(rng.permutation(len(self._errors_E))[: self._config.most])
        sums_E, changed_E = np.zeros_like(self._errors_E), np.zeros_like(self._errors_E)
        batches = iter_sampled_windows(
            self._replay,
            "train",
            self._window,
            per_episode=self._config.windows,
            batch_size=SCORED_AT_ONCE,
            episodes=scored[rank::world_size],
        )
        was_training = model.training
        model.eval()
        for episodes, batch in batches:
            with autocast:
                found = prediction_errors(
                    model, batch["frames_BTHWC"].to(device), batch["actions_BT"][:, :-1].to(device)
                )
            np.add.at(sums_E, episodes, found.nll_BA[:, 0].double().cpu().numpy())
            np.add.at(changed_E, episodes, found.changed_B.cpu().numpy())
        model.train(was_training)
        if world_size > 1:
            parts: list[Any] = [None] * world_size
            torch.distributed.all_gather_object(parts, (sums_E, changed_E))
            sums_E, changed_E = (np.sum(part, axis=0) for part in zip(*parts, strict=True))
        now_E = np.divide(sums_E, changed_E, out=np.full_like(sums_E, np.nan), where=changed_E > 0)
        known = ~np.isnan(now_E)
        self._progress_E[known] = (self._errors_E - now_E)[known]
        self._errors_E[known] = now_E[known]
        return episode_weights(self._errors_E, self._progress_E, self._config).tolist()

    @property
    def mean_error(self) -> float:
        """Nats per changed token over all episodes scored so far."""
        return float(np.nanmean(self._errors_E)) if not np.isnan(self._errors_E).all() else 0.0

    def state_dict(self) -> dict[str, list[float]]:
        """What a resumed training needs."""
        return {"errors": self._errors_E.tolist(), "progress": self._progress_E.tolist()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        """Continues from a state."""
        self._errors_E, self._progress_E = np.array(state["errors"]), np.array(state["progress"])


def episode_weights(errors_E: Floats, progress_E: Floats, config: RankingConfig) -> Floats:
    """Weights from 1 − strength to 1 + strength, by groups of equal size, in the order of error and progress.

    An episode whose error is unknown weighs 1; one scored only once is placed by its error alone.
    """
    weights_E = np.ones_like(errors_E)
    known = np.flatnonzero(~np.isnan(errors_E))
    if len(known) < config.groups:
        return weights_E
    place = ranks(errors_E[known])
    both = ~np.isnan(progress_E[known])
    if both.any():
        place[both] = (place[both] + ranks(progress_E[known][both])) / 2
    group = (np.argsort(np.argsort(place, kind="stable"), kind="stable") * config.groups) // len(known)
    weights_E[known] = 1 + config.strength * (2 * group / (config.groups - 1) - 1)
    return weights_E


def ranks(values: Floats) -> Floats:
    """From 0, the lowest, to 1, the highest; equal values share their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts + 1) / 2
    return mean_rank[place] / max(1, len(values) - 1)
