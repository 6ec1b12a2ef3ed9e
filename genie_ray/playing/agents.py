"""Training an RLlib algorithm as a stage: progress, metrics, resuming after a crash, and the trained policy.

<output>/module/         the trained policy, once the training is complete (`policies.saved`)
<output>/best-000020/    the best policy so far, if policies are evaluated (`policies.saved`), and score.json
<output>/state-000020/   what an unfinished training resumes from (an Algorithm checkpoint)
<output>/metrics.jsonl
"""

from __future__ import annotations

import json
import math
import pickle
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from genie_ray.base.errors import cause_of
from genie_ray.base.metrics_log import MetricsLog
from genie_ray.base.progress import progress_bar
from genie_ray.base.tracking.mlflow_run import tracked
from genie_ray.storage.paths import StoredPath, entries, found
from genie_ray.storage.whole import local_copy, remove, whole_directory
from policies.play.starting import start_algorithm
from policies.saved import POLICY_FILE, save_policy

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

Figures = Callable[[Mapping[str, Any]], Mapping[str, float]]
"""Picks the figures to log from an RLlib result."""
COMPANIONS_FILE = "companions.pkl"
SCORE_FILE = "score.json"
LAST = {"state": COMPANIONS_FILE, "best": SCORE_FILE}  # written last: what has it is whole


class Companion(Protocol):
    """Accompanies a training; its state is saved with the training's."""

    def after_iteration(self, algorithm: Any, iteration: int, log: MetricsLog) -> Mapping[str, float]:
        """Called after each iteration; returns further figures to log."""
        ...

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


Line = dict[str, float]
"""A line of metrics.jsonl: `iteration` and its figures."""


def train_agent(config: AlgorithmConfig, output: StoredPath, **training: Any) -> StoredPath:
    """Trains to the end and returns the trained policy's directory; arguments as for `agent_iterations`."""
    for _ in agent_iterations(config, output, **training):
        pass
    return output / "module"


def agent_iterations(
    config: AlgorithmConfig,
    output: StoredPath,
    *,
    iterations: int,
    checkpoint_every: int,
    title: str,
    figures: Figures,
    shown: Sequence[str],
    companions: Sequence[Companion] = (),
    about: Mapping[str, Any] | None = None,
    mlflow: str | None = None,
) -> Generator[Line, None, None]:
    """Trains for a number of iterations, from the last saved state if there is one, and yields what each one logs.

    Closing the generator stops the training. At the end `module/` holds the trained policy: the best one that was kept
    (`keep_best`), or else the last. If it is there already, nothing is done.

    Args:
        figures: what is logged for each iteration.
        shown: which of them are shown beside the progress bar.
        companions: called in this order.
        about: what the policy is for, kept with it (`policies.saved.save_policy`).
        mlflow: URI of a server that gets the log, too.
    """
    module = output / "module"
    if is_trained(output):
        _remove(output, "state")
        return
    output.mkdir(parents=True, exist_ok=True)
    algorithm = start_algorithm(config)
    try:
        state = latest(output, "state")
        if state is not None:
            with local_copy(state) as place:
                algorithm.restore_from_path(place.resolve())
            for companion, saved in zip(companions, saved_companions(output), strict=True):
                companion.set_state(saved)
        done = algorithm.iteration
        log = MetricsLog(output, from_iteration=done)
        with tracked(output, mlflow), progress_bar(title, iterations) as bar:
            while done < iterations:
                result = algorithm.train()
                done = algorithm.iteration
                picked = dict(figures(result))
                for companion in companions:
                    picked |= companion.after_iteration(algorithm, done, log)
                picked = {key: value for key, value in picked.items() if math.isfinite(value)}
                log.write(done, picked)
                bar.update(done, **{key: picked[key] for key in shown if key in picked})
                if done % checkpoint_every == 0 or done == iterations:
                    log.flush()
                    state = _save_state(algorithm, output, done, [companion.get_state() for companion in companions])
                yield {"iteration": done, **picked}
        log.close()
        with whole_directory(module, last=POLICY_FILE) as temporary:
            if (best := latest(output, "best")) is not None:
                with local_copy(best) as kept:
                    shutil.copytree(kept, temporary, dirs_exist_ok=True)
            else:
                save_current(algorithm, temporary, about)
    except Exception as error:
        raise cause_of(error) from error
    finally:
        algorithm.stop()
    _remove(output, "state")


def is_trained(output: StoredPath) -> bool:
    """Whether a training is complete: its policy is there."""
    module = output / "module"
    return module.exists() if isinstance(module, Path) else (module / POLICY_FILE).is_file()


def save_current(algorithm: Any, directory: Path, about: Mapping[str, Any] | None) -> None:
    """Saves an algorithm's current policy. Its learner may be on another node, and sends the files."""
    from ray.rllib.core import DEFAULT_MODULE_ID

    told = dict(about or {})

    def saved(learner: Any) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory(prefix="genie-ray-") as place:
            save_policy(learner.module[DEFAULT_MODULE_ID].unwrapped(), Path(place), told)
            return {file.name: file.read_bytes() for file in Path(place).iterdir()}

    answer = next(iter(algorithm.learner_group.foreach_learner(saved)))
    if not answer.ok:
        raise answer.get()
    for name, content in answer.get().items():
        (directory / name).write_bytes(content)


def keep_best(
    algorithm: Any,
    output: StoredPath,
    *,
    score: float,
    judge: str,
    iteration: int,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Keeps the current policy, unless the one kept before is better.

    Scores from one judge are compared; on a tie, the later policy is kept. Scores from different judges are not
    comparable (a world model that has learned is more certain of everything), nor are those of a judge that learns: the
    later policy is kept. A policy without a score (NaN) never replaces one with a score.

    Args:
        judge: version of the judge that gave the score (`policies.rewards.RewardAnswer`), with a "+" if it learns or
            counts all play.
        about: what the policy is for, kept with it.
    """
    before = latest(output, "best")
    if before is not None:
        kept = json.loads((before / SCORE_FILE).read_text())
        comparable = judge == kept["judge"] and "+" not in judge
        if not math.isnan(kept["score"]) and (math.isnan(score) or (comparable and score < kept["score"])):
            return
    best = output / f"best-{iteration:06d}"  # may be there, from before the training resumed at an earlier state
    with whole_directory(best, last=SCORE_FILE) as temporary:
        save_current(algorithm, temporary, about)
        (temporary / SCORE_FILE).write_text(json.dumps({"score": score, "judge": judge, "iteration": iteration}))
    _remove(output, "best", but=best)


def saved_companions(output: StoredPath) -> list[dict[str, Any]]:
    """The companions' states that an unfinished training resumes from; empty if it has no saved state."""
    state = latest(output, "state")
    return [] if state is None else pickle.loads((state / COMPANIONS_FILE).read_bytes())


def saved_iteration(output: StoredPath) -> int:
    """The iteration that an unfinished training resumes from; 0 if it has no saved state."""
    state = latest(output, "state")
    return 0 if state is None else int(state.name.removeprefix("state-"))


def latest(output: StoredPath, kind: str) -> StoredPath | None:
    """The latest saved "best" or "state" of a training."""
    return max((file.parent for file in found(output, f"{kind}-*/{LAST[kind]}")), default=None, key=str)


def _save_state(algorithm: Any, output: StoredPath, iteration: int, companions: list[dict[str, Any]]) -> StoredPath:
    """Saves a state as a whole, and removes earlier ones."""
    state = output / f"state-{iteration:06d}"
    with whole_directory(state, last=COMPANIONS_FILE) as temporary:
        algorithm.save_to_path(temporary.resolve())
        (temporary / COMPANIONS_FILE).write_bytes(pickle.dumps(companions))
    _remove(output, "state", but=state)
    return state


def _remove(output: StoredPath, kind: str, *, but: StoredPath | None = None) -> None:
    for path in entries(output):
        if fnmatch(path.name, f"{kind}-*") and path != but:
            remove(path)
