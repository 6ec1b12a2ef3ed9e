"""The report's section on the explorers: what their training did, step by step, and what to be warned of."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from genie_ray.metrics_log import read_metrics

CURVES = {
    "reward_mean": "mean reward",
    "entropy": "policy entropy (nats)",
    "cells": "distinct cells seen in training",
    "cells_of_epoch_per_step": "distinct cells per step of an epoch",
    "evaluation_return_per_step": "return per step of evaluations",
    "fragments_dropped": "fragments dropped, as they got no rewards",
    "reward_wait_s": "seconds that workers waited for rewards, per epoch",
}
PICTURES = {
    "episode.gif": "the best evaluated episode",
    "top_rewards.png": "the windows of the highest rewards",
    "entropy_map.png": "where in the frame the reward comes from",
}


def explorer_section(run: Path) -> dict[str, Any]:
    """Learning curves of a run's explorers, warnings, and the pictures of each one's latest evaluation."""
    from genie_ray.figures import curves

    trainings = {path.parent.name: read_metrics(path) for path in sorted(run.glob("agent/*/metrics.jsonl"))}
    plots = []
    for key, title in CURVES.items():
        data = {
            game: ([line["iteration"] for line in lines if key in line], [line[key] for line in lines if key in line])
            for game, lines in trainings.items()
        }
        if any(xs for xs, _ in data.values()):
            plots.append(curves(data, x="epoch", y=title, title="explorer"))
    return {
        "plots": plots,
        "warnings": [text for game, lines in trainings.items() if (text := _warning(game, lines))],
        "pictures": {game: _pictures(run / "agent" / game) for game in trainings},
    }


def _warning(game: str, lines: list[dict[str, float]]) -> str:
    """Whether, and since when, a policy collected reward instead of exploring; empty if it did not."""
    settled = [int(line["iteration"]) for line in lines if line.get("settled")]
    if not settled:
        return ""
    first, last = lines[0]["cells_of_epoch_per_step"], lines[-1]["cells_of_epoch_per_step"]
    return (
        f"{game}: the explorer settled in {len(settled)} epochs (the first is {settled[0]}): its reward rose while its "
        f"play narrowed, from {first:.3f} distinct cells a step in the first epoch to {last:.3f} in the last."
    )


def _pictures(agent: Path) -> list[dict[str, str]]:
    """The latest evaluation's pictures, as data URIs with titles."""
    latest = max(agent.glob("pictures/epoch-*"), default=None)
    shown = []
    for name, title in PICTURES.items():
        if latest is not None and (latest / name).exists():
            content = base64.b64encode((latest / name).read_bytes()).decode()
            shown.append({"title": title, "uri": f"data:image/{name[-3:]};base64,{content}"})
    return shown
