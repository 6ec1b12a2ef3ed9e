"""An exploration's log: coverage, rewards, evaluations, pictures, and a warning when the reward misleads.

The reward is only a means. The goal is new play, which is counted in cells (`replay.coverage`) and, where a game's
memory is known (`games/memory.yaml`), in player positions. A policy can collect reward without exploring, by staying
where the world model never becomes certain; the log warns of play that narrows.

Axis letters: n actions of a fragment, H W C frame, h w the grid of a frame's tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from genie_ray.base.errors import one_line
from genie_ray.base.progress import console
from genie_ray.exploring.pictures import write_pictures
from genie_ray.exploring.settling import SettlingDetector
from genie_ray.playing.agents import keep_best
from genie_ray.replay.coverage import cells, level_of, place_of
from policies.rewards import RewardClientFactory, RewardUnavailableError

if TYPE_CHECKING:
    from genie_ray.base.metrics_log import MetricsLog
    from genie_ray.storage.paths import StoredPath
    from policies.judged.algorithm import JudgedAlgorithm
    from policies.judged.env_runner import JudgedFragment
    from policies.play.recorded import RecordedPlay

QUANTILES = {"p05": 0.05, "p50": 0.5, "p95": 0.95}


class ExplorationLog:
    """Companion of an exploration's training (`playing.agents.Companion`): figures, pictures, maybe the best policy.

    Args:
        output: directory of the training.
        game: of fragments that do not name their game.
        rewards: makes a client that answers with maps of where in a frame the reward comes from.
        action_names: of the environments, in order.
        keeps_best: whether the policy with the best evaluation is kept; else the last one is.
        about: what a kept policy is for (`policies.saved.save_policy`).
        planned_workers: rollout workers that there may be; how many there are is told when it changes.
    """

    def __init__(
        self,
        output: StoredPath,
        game: str,
        rewards: RewardClientFactory,
        action_names: Sequence[str],
        *,
        keeps_best: bool = True,
        about: Mapping[str, Any] | None = None,
        planned_workers: int = 0,
    ) -> None:
        self._planned_workers = self._workers = planned_workers
        self._keeps_best, self._about = keeps_best, about
        self._output, self._game, self._rewards, self._action_names = output, game, rewards, action_names
        self._cells: dict[str, set[int]] = defaultdict(set)
        self._places: dict[str, set[tuple[int, ...]]] = defaultdict(set)
        self._levels: dict[str, set[int]] = defaultdict(set)
        self._settling = SettlingDetector()
        self._warned = False
        self._evaluated: JudgedFragment | None = None

    def after_iteration(self, algorithm: JudgedAlgorithm, epoch: int, log: MetricsLog) -> dict[str, float]:
        """An epoch's figures, including those of its evaluation, if any."""
        self._tell_workers(algorithm, epoch)
        figures = self._coverage(algorithm)
        rewards = np.concatenate([play.rewards for _, play in self._plays(algorithm.arrived)])
        known = rewards[~np.isnan(rewards)]
        if known.size:
            figures |= {f"reward_{name}": float(np.quantile(known, q)) for name, q in QUANTILES.items()}
            log.histogram("rewards", known, epoch)
            ends = [play.rewards[-1] for _, play in self._plays(algorithm.arrived) if play.terminated]
            if ends and not np.isnan(ends).all():
                figures["reward_at_ends"] = float(np.nanmean(ends))
            settled = self._settling.update(
                cells_per_step=figures["cells_of_epoch_per_step"], reward=float(known.mean())
            )
            figures["settled"] = float(settled)
            if settled and not self._warned:
                self._warned = True
                _warn(
                    f"epoch {epoch}: {self._settling.describe()}: the policy may have settled where the world model "
                    "cannot learn. A higher exploration.learning.entropy_weight, exploration.rounds or another "
                    "reward.kind may help"
                )
        if algorithm.evaluation_error:
            _warn(
                f"epoch {epoch}: the evaluation failed ({algorithm.evaluation_error})"
                + "; this policy cannot become the best one, and without any evaluation the last one is the result"
                * self._keeps_best
            )
            algorithm.evaluation_error = ""
        if algorithm.evaluated is not self._evaluated:
            self._evaluated = algorithm.evaluated
            figures |= self._evaluation(algorithm, epoch)
        return figures

    def _tell_workers(self, algorithm: JudgedAlgorithm, epoch: int) -> None:
        """Says how many rollout workers there are, when they have become fewer or more."""
        there = algorithm.env_runner_group.num_healthy_remote_env_runners()
        if self._planned_workers and there != self._workers:
            self._workers = there
            more = "; more join when CPUs become free" if there < self._planned_workers else ""
            console.print(f"epoch {epoch}: {there} of {self._planned_workers} rollout workers play{more}")

    def _coverage(self, algorithm: JudgedAlgorithm) -> dict[str, float]:
        """Counts of cells and places: in total, in this epoch, and new in it; levels begun; how often episodes end."""
        steps, of_epoch, new, ends = 0, defaultdict(set), 0, 0
        for game, play in self._plays(algorithm.arrived):
            steps += len(play)
            ends += play.terminated
            self._levels[game].update(level for info in play.infos if (level := level_of(info)) is not None)
            of_epoch[game].update(cells(play.frames[1:]).tolist())
            self._places[game].update(place for info in play.infos if (place := place_of(info)))
        for game, found in of_epoch.items():
            new += len(found - self._cells[game])
            self._cells[game] |= found
        figures = {
            "cells": float(sum(map(len, self._cells.values()))),
            "new_cells_per_step": new / steps,
            "cells_of_epoch_per_step": sum(map(len, of_epoch.values())) / steps,
            "ends_per_1000_steps": 1000 * ends / steps,
        }
        known: dict[str, Mapping[str, set[Any]]] = {"places": self._places, "levels": self._levels}
        for name, sets in known.items():
            if any(sets.values()):
                figures[name] = float(sum(map(len, sets.values())))
        if len(self._cells) > 1:
            figures |= {f"cells/{game}": float(len(found)) for game, found in self._cells.items()}
        return figures

    def _evaluation(self, algorithm: JudgedAlgorithm, epoch: int) -> dict[str, float]:
        played = algorithm.evaluated
        assert played is not None
        rewards = np.concatenate([play.rewards for play in played.recorded])
        score = float(np.nan if np.isnan(rewards).all() else np.nanmean(rewards))
        found = {cell for play in played.recorded for cell in cells(play.frames).tolist()}
        if self._keeps_best:
            keep_best(algorithm, self._output, score=score, judge=played.version, iteration=epoch, about=self._about)
        try:
            write_pictures(
                self._output / "pictures" / f"epoch-{epoch:06d}", played.recorded, self._rewards(), self._action_names
            )
        except RewardUnavailableError as error:
            _warn(f"epoch {epoch}: no pictures of the evaluation: {one_line(error)}")
        return {"evaluation_return_per_step": score, "evaluation_cells_per_step": len(found) / played.steps}

    def _plays(self, fragments: list[JudgedFragment]) -> Iterator[tuple[str, RecordedPlay]]:
        """The pieces of episodes, with their games."""
        for play in (play for fragment in fragments for play in fragment.recorded):
            yield play.infos[0].get("game", self._game), play

    def get_state(self) -> dict[str, Any]:
        return {
            "cells": dict(self._cells),
            "places": dict(self._places),
            "levels": dict(self._levels),
            "settling": self._settling.get_state(),
            "warned": self._warned,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self._cells, self._places = defaultdict(set, state["cells"]), defaultdict(set, state["places"])
        self._levels = defaultdict(set, state["levels"])
        self._settling.set_state(state["settling"])
        self._warned = state["warned"]


def _warn(text: str) -> None:
    console.print(f"warning: {text}", soft_wrap=True, markup=False)
