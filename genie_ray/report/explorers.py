"""The report's section on the explorers: learning curves, warnings, and pictures."""

from __future__ import annotations

import base64
from typing import Any

from genie_ray.base.metrics_log import read_metrics
from genie_ray.exploring.settling import SettlingDetector
from genie_ray.storage.paths import StoredPath, found

CURVES = {
    "reward_mean": "mean reward",
    "entropy": "policy entropy (nats)",
    "cells": "distinct cells seen in training",
    "cells_of_epoch_per_step": "distinct cells per step of an epoch",
    "evaluation_return_per_step": "return per step in evaluations",
    "fragments_dropped": "fragments dropped for lack of rewards",
    "reward_wait_s": "seconds workers waited for rewards, per epoch",
}
PICTURES = {
    "episode.gif": "the best evaluated episode",
    "top_rewards.png": "the windows with the highest rewards",
    "entropy_map.png": "where in the frame the reward comes from",
}


def explorer_section(run: StoredPath) -> dict[str, Any]:
    """Learning curves of a run's explorers, warnings, and the pictures of each one's latest evaluation."""
    from genie_ray.base.figures import curves

    trainings = {path.parent.name: read_metrics(path) for path in found(run, "agent/*/metrics.jsonl")}
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
    """In which epochs a policy stayed in one spot instead of exploring; empty if in none."""
    detector, settled, described = SettlingDetector(), [], ""
    for line in lines:
        if "reward_mean" in line and detector.update(
            cells_per_step=line["cells_of_epoch_per_step"], reward=line["reward_mean"]
        ):
            settled.append(int(line["iteration"]))
            described = detector.describe()
    if not settled:
        return ""
    epochs = "1 epoch" if len(settled) == 1 else f"{len(settled)} epochs"
    return f"{game}: the explorer settled in {epochs} (the first is {settled[0]}, the last {settled[-1]}): {described}."


def _pictures(agent: StoredPath) -> list[dict[str, str]]:
    """The latest evaluation's pictures, as data URIs with titles."""
    latest = max((file.parent for file in found(agent, "pictures/epoch-*/*")), default=None, key=str)
    shown = []
    for name, title in PICTURES.items():
        if latest is not None and (latest / name).exists():
            content = base64.b64encode((latest / name).read_bytes()).decode()
            shown.append({"title": title, "uri": f"data:image/{name[-3:]};base64,{content}"})
    return shown
