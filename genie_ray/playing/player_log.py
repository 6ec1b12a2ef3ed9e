"""What is told of an Agent57 in training: its evaluations, clips of them, and curves by arm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from genie_ray.base.figures import blank_figure, labelled_clip
from genie_ray.base.files import write_atomically
from genie_ray.base.metrics_log import read_metrics
from genie_ray.base.progress import console
from genie_ray.playing.agents import keep_best

if TYPE_CHECKING:
    from genie_ray.base.metrics_log import MetricsLog
    from genie_ray.storage.paths import StoredPath
    from policies.agent57.algorithm import Agent57
    from policies.agent57.env_runner import Agent57Play

CLIP_FRAMES, CLIP_FRAME_MS = 100, 80
SMOOTHED = 5  # iterations


class PlayerLog:
    """Companion of a training (`playing.agents.Companion`): keeps the agent with the best evaluation.

    Args:
        output: directory of the training.
        about: what the policy is for (`policies.saved.save_policy`).
        arms: how many the agent has.
    """

    def __init__(self, output: StoredPath, about: Mapping[str, Any], *, arms: int) -> None:
        self._output, self._about, self._arms = output, about, arms

    def after_iteration(self, algorithm: Agent57, iteration: int, log: MetricsLog) -> dict[str, float]:
        """The iteration's evaluation, if any."""
        played, algorithm.evaluated = algorithm.evaluated, None
        if algorithm.evaluation_error:
            console.print(
                f"warning: iteration {iteration}: the evaluation failed ({algorithm.evaluation_error}); this agent "
                "cannot become the best one",
                soft_wrap=True,
                markup=False,
            )
            algorithm.evaluation_error = ""
        if played is None:
            return {}
        score = float(np.mean([episode.value for episode in played.finished]))
        keep_best(algorithm, self._output, score=score, judge="game", iteration=iteration, about=self._about)
        self._write_clip(played.plays, iteration)
        return {"evaluation_return": score, "evaluation_arm": float(played.finished[0].arm)}

    def draw(self) -> None:
        """Curves of the whole training: returns of each arm in training, and evaluations."""
        lines = read_metrics(self._output / "metrics.jsonl")
        if not any("evaluation_return" in line for line in lines):
            return
        figure = blank_figure(5.5, 3.4)
        axes = figure.add_subplot()
        for arm in range(self._arms):
            steps, returns = _series(lines, f"return_arm_{arm}")
            if self._arms <= 8 and len(steps):
                axes.plot(steps, _smooth(returns), linewidth=1, alpha=0.7, label=f"arm {arm} in training")
        axes.plot(*_series(lines, "evaluation_return"), "k.-", label="best arm, evaluated")
        axes.set(xlabel="environment steps", ylabel="game score per episode", title=", ".join(self._about["games"]))
        axes.grid(alpha=0.25)
        axes.legend(fontsize=7, frameon=False)
        write_atomically(self._output / "curves.png", lambda path: figure.savefig(path, format="png"))

    def _write_clip(self, plays: list[Agent57Play], iteration: int) -> None:
        """The first episode. Of its pieces, each begins with the frame that the one before ends with."""
        first = [play for play in plays if play.episode == plays[0].episode]
        whole = np.concatenate([first[0].frames[:1], *[play.frames[1:] for play in first]])
        every = max(1, len(whole) // CLIP_FRAMES)
        total = np.r_[0.0, np.cumsum(np.concatenate([play.game_rewards for play in first]))][::every]
        gif = labelled_clip(
            {f"arm {first[0].arm}": whole[::every]}, [f"score {value:g}" for value in total], frame_ms=CLIP_FRAME_MS
        )
        directory = self._output / "pictures"
        directory.mkdir(parents=True, exist_ok=True)
        write_atomically(directory / f"iteration-{iteration:06d}.gif", lambda path: path.write_bytes(gif))

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        pass


def _series(lines: list[dict[str, float]], key: str) -> tuple[list[float], list[float]]:
    return [line["env_steps"] for line in lines if key in line], [line[key] for line in lines if key in line]


def _smooth(values: list[float]) -> np.ndarray:
    """Mean of the last few values at each point."""
    return np.array([np.mean(values[max(0, i - SMOOTHED + 1) : i + 1]) for i in range(len(values))])
