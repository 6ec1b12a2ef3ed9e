"""Whether test agents play better than chance: without that, a test set holds nothing but random play.

Axes: E episodes, S bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genie_ray.replay.dataset import ReplayDataset
from genie_ray.storage.paths import StoredPath

SAMPLES = 10_000
LEVEL_COMPLETE = "level_complete"
"""CoinRun's note that an episode ended with the coin."""


@dataclass(frozen=True)
class Outcome:
    """How the whole episodes of a dataset ended. An episode that the end of a shard cut short is not among them."""

    returns_E: Sequence[float]  # of the game's own reward
    finished_E: Sequence[bool]  # with the level complete; empty where the game does not tell


def outcome(play: StoredPath, max_episode_steps: int, game: str | None = None) -> Outcome:
    """The outcomes of the episodes, of one game or all, that the game or its limit of steps ended."""
    dataset = ReplayDataset(play)
    returns: list[float] = []
    finished: list[bool] = []
    for reference in dataset.episodes:
        if game not in (None, reference.game):
            continue
        episode = dataset.read(reference)
        if not episode.terminated and len(episode.actions) < max_episode_steps:
            continue
        returns.append(float(episode.reward_env.sum()))
        if LEVEL_COMPLETE in episode.infos[-1]:
            finished.append(bool(episode.infos[-1][LEVEL_COMPLETE]))
    return Outcome(returns, finished)


def depth(test: Outcome, chance: Outcome) -> dict[str, Any]:
    """Whether test play is visibly better than chance: the gain in mean return with its 95 % interval over episodes.

    Returns:
        `deep` is whether the interval lies above 0; None, like the interval, if one of the two has fewer than two whole
        episodes. `finished` and `finished_by_chance` are shares of levels, None where the game does not tell.
    """
    enough = min(len(test.returns_E), len(chance.returns_E)) > 1
    interval = _gain_interval(test.returns_E, chance.returns_E) if enough else None
    return {
        "episodes": len(test.returns_E),
        "return": _mean(test.returns_E),
        "return_by_chance": _mean(chance.returns_E),
        "gain_interval": interval,
        "deep": None if interval is None else interval[0] > 0,
        "finished": _mean(test.finished_E),
        "finished_by_chance": _mean(chance.finished_E),
    }


def told(found: Mapping[str, Any]) -> str:
    """A check in one sentence."""
    if found["deep"] is None:
        return "too few whole episodes to tell whether this is a test agent"
    low, high = found["gain_interval"]
    scores = f"{found['return']:.2f} a game, chance {found['return_by_chance']:.2f}; gain [{low:.2f}, {high:.2f}]"
    if found["deep"]:
        return f"a test agent: {scores}"
    return f"not a test agent, since it is not visibly better than chance: {scores}"


def _gain_interval(ours_E: Sequence[float], theirs_E: Sequence[float]) -> list[float]:
    """95 % interval of the difference of two means; the two sets of episodes are drawn independently."""
    rng = np.random.default_rng(0)
    ours_S, theirs_S = (
        np.asarray(values)[rng.integers(len(values), size=(SAMPLES, len(values)))].mean(1)
        for values in (ours_E, theirs_E)
    )
    return [float(bound) for bound in np.quantile(ours_S - theirs_S, [0.025, 0.975])]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
