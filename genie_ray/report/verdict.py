"""Whether the world model learned more from exploration than from random play: per game, in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

BASE, ON_RANDOM, ON_EXPLORED = "base model", "fine-tuned on random play", "fine-tuned on explored play"
"""The rows of a run's table that are compared."""

FEWEST_EPISODES = 5
"""With fewer, an interval over test episodes says nothing."""


def verdict(evaluation: Mapping[str, Any], game: str) -> dict[str, str]:
    """Whether fine-tuning on explored play beat fine-tuning on random play on a game, in plain words."""
    from genie_ray.evaluating.scores import psnr_gain_interval

    ours, theirs = (evaluation["models"][label][game] for label in (ON_EXPLORED, ON_RANDOM))
    episodes = len(set(ours["window_episodes"]))
    interval = psnr_gain_interval(ours["window_errors"], theirs["window_errors"], ours["window_episodes"])
    low, high = interval or (-math.inf, math.inf)
    gain, obeys, obeys_mean = (ours[key] - theirs[key] for key in ("psnr", "delta_psnr", "delta_psnr_mean"))
    if episodes < FEWEST_EPISODES:
        kind, words = "even", "too few test episodes to tell whether exploration beats random play"
    elif low > 0:
        kind, words = "better", "exploration beats random play"
    elif high < 0:
        kind, words = "worse", "exploration does not beat random play; it does worse"
    else:
        kind, words = "even", "exploration does not beat random play; the difference is within the test set's spread"
    spread = f" (95 % interval over {episodes} test episodes {low:+.2f} to {high:+.2f})" if interval else ""
    return {
        "kind": kind,
        "text": f"{game}: {words}. PSNR {gain:+.2f} dB{spread}, ΔPSNR {obeys:+.2f} dB pooled, {obeys_mean:+.2f} dB as "
        "a mean of frames.",
    }
