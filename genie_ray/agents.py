"""Training an RLlib algorithm as a stage: progress, metrics, resume after a crash, and the trained policy as artefact.

<output>/module/         the trained policy, once the training is complete (an RLModule checkpoint)
<output>/state-000020/   what an unfinished training continues from (an Algorithm checkpoint)
<output>/metrics.jsonl
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genie_ray.errors import cause_of
from genie_ray.metrics_log import MetricsLog
from genie_ray.progress import progress_bar

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

Figures = Callable[[Mapping[str, Any]], Mapping[str, float]]
"""Picks what is logged out of an RLlib result."""


def train_agent(
    config: AlgorithmConfig,
    output: Path,
    *,
    iterations: int,
    checkpoint_every: int,
    title: str,
    figures: Figures,
    shown: Sequence[str],
) -> Path:
    """Trains for a number of iterations, from the last saved state if there is one.

    Args:
        figures: what is logged of each iteration.
        shown: which of them stand beside the progress bar.

    Returns:
        The directory of the trained policy; at once, if it is there.
    """
    from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID

    module = output / "module"
    if module.exists():
        _remove_states(output)
        return module
    output.mkdir(parents=True, exist_ok=True)
    algorithm = config.build_algo()
    try:
        state = _latest_state(output)
        if state is not None:
            algorithm.restore_from_path(state.resolve())
        done = algorithm.iteration
        log = MetricsLog(output, from_iteration=done)
        with progress_bar(title, iterations) as bar:
            while done < iterations:
                picked = {key: value for key, value in figures(algorithm.train()).items() if math.isfinite(value)}
                done = algorithm.iteration
                log.write(done, picked)
                bar.update(done, **{key: picked[key] for key in shown if key in picked})
                if done % checkpoint_every == 0 or done == iterations:
                    state = _save_state(algorithm, output, done)
        log.close()
    except Exception as error:
        raise cause_of(error) from error
    finally:
        algorithm.stop()
    assert state is not None
    trained = state / COMPONENT_LEARNER_GROUP / COMPONENT_LEARNER / COMPONENT_RL_MODULE / DEFAULT_MODULE_ID
    temporary = output / ".tmp-module"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(trained, temporary)
    temporary.rename(module)
    _remove_states(output)
    return module


def _latest_state(output: Path) -> Path | None:
    return max(output.glob("state-*"), default=None)


def _save_state(algorithm: Any, output: Path, iteration: int) -> Path:
    """Saves under a temporary name, renames, and removes the states before."""
    temporary, state = output / ".tmp-state", output / f"state-{iteration:06d}"
    shutil.rmtree(temporary, ignore_errors=True)
    algorithm.save_to_path(temporary.resolve())
    temporary.rename(state)
    for older in output.glob("state-*"):
        if older != state:
            shutil.rmtree(older)
    return state


def _remove_states(output: Path) -> None:
    for state in output.glob("state-*"):
        shutil.rmtree(state)
