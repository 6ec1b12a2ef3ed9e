"""The report's section on the test agents: whether they beat chance, learning curves, and clips of evaluations."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from genie_ray.base.metrics_log import read_metrics
from genie_ray.playing.depth import depth, outcome, told
from genie_ray.storage.paths import StoredPath, found

Lines = list[dict[str, float]]


def player_section(run: StoredPath, max_episode_steps: int) -> dict[str, Any]:
    """A run's test agents.

    Returns:
        `verdicts`: for each game, whether the test set's play beats that of chance; `plots`: SVG; `clips`: for each
        game of an Agent57, its latest evaluation, as a data URI.
    """
    from genie_ray.base.figures import curves

    trainings = {path.parent.name: read_metrics(path) for path in found(run, "player/*/metrics.jsonl")}
    data = {game: _series(lines, "return") for game, lines in trainings.items()}
    plots = [curves(data, x="iteration", y="game score per episode", title="test agents, in training")]
    for game, lines in trainings.items():
        for title, y, shown in (
            ("scores by arm", "game score per episode", lambda key: key.startswith("return_arm_")),
            ("episodes by arm", "in the bandits' windows", lambda key: key.startswith("bandit_count_")),
            ("novelty of a step", "intrinsic reward", lambda key: key.startswith("novelty_p")),
            ("evaluations of the best arm", "game score per episode", lambda key: key == "evaluation_return"),
        ):
            matching = _matching(lines, shown)
            if matching:
                plots.append(curves(matching, x="iteration", y=y, title=f"{game}: {title}"))
    clips = {}
    for game in trainings:
        pictures = found(run / "player" / game / "pictures", "*.gif")
        if pictures:
            content = base64.b64encode(pictures[-1].read_bytes()).decode()
            clips[game] = f"data:image/gif;base64,{content}"
    return {"verdicts": _verdicts(run, list(trainings), max_episode_steps), "plots": plots, "clips": clips}


def _verdicts(run: StoredPath, games: list[str], max_episode_steps: int) -> list[dict[str, Any]]:
    verdicts = []
    for game in games:
        found = depth(*(outcome(run / "datasets" / name, max_episode_steps, game) for name in ("test", "random")))
        verdicts.append({"text": f"{game}: {told(found)}", "deep": found["deep"]})
    return verdicts


def _matching(lines: Lines, shown: Callable[[str], bool]) -> dict[str, tuple[list[float], list[float]]]:
    keys = sorted({key for line in lines for key in line if shown(key)}, key=lambda key: (len(key), key))
    return {key.replace("_", " "): _series(lines, key) for key in keys[:8]}  # more curves than that are no picture


def _series(lines: Lines, key: str) -> tuple[list[float], list[float]]:
    return [line["iteration"] for line in lines if key in line], [line[key] for line in lines if key in line]
