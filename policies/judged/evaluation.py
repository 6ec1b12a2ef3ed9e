"""Evaluation of a judged policy: play from the start without random actions, judged as in training."""

import time
from typing import Protocol

from ray.rllib.env.env_runner_group import EnvRunnerGroup

from policies.judged.env_runner import JudgedFragment
from policies.ray_internals import end_remote_runner, mark_unhealthy


class EvaluationPlay(Protocol):
    """Settings of how an evaluation plays."""

    @property
    def evaluation_steps(self) -> int:
        """Decisions per environment."""
        ...

    @property
    def evaluation_temperature(self) -> float: ...

    @property
    def fragment_length(self) -> int:
        """Decisions that RLlib's timeout is for."""
        ...


def play_evaluation(runners: EnvRunnerGroup, play: EvaluationPlay, *, fragment_timeout_s: float) -> JudgedFragment:
    """Has an evaluation runner play. If it dies or hangs, the returned fragment has an `error`."""
    timeout_s = fragment_timeout_s * -(-play.evaluation_steps // play.fragment_length)
    begin = time.monotonic()
    played = runners.foreach_env_runner(
        lambda runner: runner.evaluate(steps=play.evaluation_steps, temperature=play.evaluation_temperature),
        local_env_runner=not runners.num_remote_env_runners(),
        timeout_seconds=timeout_s,
    )
    if played:
        return played[0]
    # RLlib restarts a runner that died or is killed here before the next evaluation.
    if time.monotonic() - begin >= timeout_s:
        for runner in runners.healthy_env_runner_ids():
            end_remote_runner(runners, runner)
            mark_unhealthy(runners, runner)
    return JudgedFragment(error=f"the runner died, or took more than {timeout_s:g} s")
