"""Evaluation of AutoExplore's policy: play from the start without random actions, judged as in training."""

import time
from typing import TYPE_CHECKING, Any

from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EVALUATION_RESULTS

from policies.ray_internals import end_remote_runner, mark_unhealthy

if TYPE_CHECKING:
    from policies.autoexplore.algorithm import AutoExplore


def evaluate(algorithm: "AutoExplore", runners: EnvRunnerGroup) -> tuple[dict[str, Any], int, int]:
    """RLlib's hook: lets an evaluation runner play, and takes in its figures. Keeps what was played, or why nothing."""
    learning = algorithm.config.learning
    fragments = -(-learning.evaluation_steps // learning.fragment_length)
    timeout_s = algorithm.config.sample_timeout_s * fragments
    begin = time.monotonic()
    played = runners.foreach_env_runner(
        lambda runner: runner.evaluate(steps=learning.evaluation_steps, temperature=learning.evaluation_temperature),
        local_env_runner=not runners.num_remote_env_runners(),
        timeout_seconds=timeout_s,
    )
    # A runner that died, or is ended here, is started again by RLlib for the next time.
    if not played and time.monotonic() - begin >= timeout_s:
        for runner in runners.healthy_env_runner_ids():
            end_remote_runner(runners, runner)
            mark_unhealthy(runners, runner)
    algorithm.evaluation_error = played[0].error if played else f"the runner died, or took more than {timeout_s:g} s"
    if algorithm.evaluation_error:
        return {}, 0, 0
    (algorithm.evaluated,) = played
    algorithm.metrics.aggregate([algorithm.evaluated.metrics], key=(EVALUATION_RESULTS, ENV_RUNNER_RESULTS))
    return {}, algorithm.evaluated.steps, algorithm.evaluated.steps
