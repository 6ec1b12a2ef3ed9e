"""Play and learning in parallel, on real Ray runners, one of which is killed."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from policies.autoexplore.algorithm import AutoExplore
from policies.judged import algorithm as judged
from policies.play import fragments
from tests.policies.autoexplore.small_run import LEARNING, config
from tests.policies.toys import Dies, Outage, OutageUntil
from tests.soak.killing import EMULATOR, processes

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.slow]
BOUND = 30  # updates
EPOCH_STEPS = 2 * 2 * 40  # runners × environments × steps


def remote_config(**learning: Any) -> Any:
    settings = {"num_envs": 2, "evaluation_every": 100} | learning
    return config(length=100).env_runners(num_env_runners=2).training(learning=replace(LEARNING, **settings))


def updates_of(algorithm: AutoExplore) -> int:
    return algorithm.env_steps * LEARNING.updates_per_epoch // EPOCH_STEPS


@pytest.fixture(scope="module")
def algorithm() -> Iterator[AutoExplore]:
    algorithm = remote_config(max_weights_age=BOUND).build_algo()
    yield algorithm
    algorithm.stop()


def test_weights_are_never_older_than_allowed_and_the_ratio_is_exact(algorithm: AutoExplore) -> None:
    for epoch in range(1, 4):
        explored = algorithm.train()["exploration"]
        assert algorithm.env_steps >= epoch * EPOCH_STEPS
        assert algorithm.updates == updates_of(algorithm) == explored["updates"]
        assert explored["weights_age_max"] <= BOUND
    versions = np.concatenate([e.get_extra_model_outputs(WEIGHTS_SEQ_NO) for e in algorithm.replay.episodes])
    assert len(np.unique(versions)) >= 3  # newer weights reached the runners


def test_the_learner_outlives_a_killed_runner_and_a_killed_emulator(algorithm: AutoExplore) -> None:
    runners = algorithm.env_runner_group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)
    found = processes([psutil.Process(runners[0]).ppid()])  # as a soak finds them, to kill them
    assert {process.pid for process in found["rollout worker, exploring"]} >= set(runners)
    emulators = psutil.Process(runners[1]).children()
    assert {process.pid for process in emulators} == {
        process.pid for process in found[EMULATOR] if process.ppid() == runners[1]
    }
    os.kill(runners[0], signal.SIGKILL)
    emulators[0].kill()
    end = time.monotonic() + 120
    while algorithm.env_runner_group.num_remote_worker_restarts() == 0:
        assert time.monotonic() < end
        algorithm.train()
    algorithm.train()
    now = algorithm.env_runner_group.foreach_env_runner(lambda runner: os.getpid(), local_env_runner=False)
    assert len(now) == 2
    assert runners[0] not in now
    assert algorithm.updates == updates_of(algorithm)
    for episode in algorithm.replay.episodes:  # everything that came back is in order
        np.testing.assert_array_equal(episode.get_observations()[1:, 0, 0, 0], 50 * (episode.get_actions() + 1))
    # ε keeps falling with the steps of all environments: a restarted runner does not start over.
    steps = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: runner.num_env_steps_sampled_lifetime, local_env_runner=False
    )
    assert min(steps) > 2 * EPOCH_STEPS


def test_runners_that_only_die_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Including runners that return a first fragment, which is empty."""
    monkeypatch.setattr(fragments, "MAX_DEATHS_IN_A_ROW", 1)
    algorithm = remote_config().env_runners(num_env_runners=1).training(reward_client_factory=Dies).build_algo()
    with pytest.raises(RuntimeError, match="died 2 times in a row"):
        algorithm.training_step()
    algorithm.stop()


def test_a_runner_that_hangs_is_started_again(tmp_path: Path) -> None:
    hanging = remote_config().env_runners(num_env_runners=1, sample_timeout_s=5.0)
    hanging.environment(env_config={"hangs": str(tmp_path / "hung")})
    algorithm = hanging.build_algo()
    explored = algorithm.train()["exploration"]
    algorithm.stop()
    assert (tmp_path / "hung").exists()
    assert explored["runner_restarts"] == 1
    assert explored["env_steps"] == EPOCH_STEPS // 2


def test_an_evaluation_that_hangs_is_given_up_and_the_next_one_plays(tmp_path: Path) -> None:
    hanging = remote_config(evaluation_every=1).env_runners(num_env_runners=1, sample_timeout_s=3.0)
    hanging.evaluation(
        evaluation_num_env_runners=1, evaluation_config={"env_config": {"length": 100, "hangs": str(tmp_path / "hung")}}
    )
    algorithm = hanging.build_algo()
    algorithm.train()
    assert (tmp_path / "hung").exists()
    assert algorithm.evaluation_error.startswith("the runner died, or took more than")
    assert algorithm.evaluated is None
    end = time.monotonic() + 120
    while algorithm.evaluated is None:  # the runner is back after a while
        assert time.monotonic() < end
        algorithm.train()
    assert algorithm.evaluation_error == ""
    algorithm.stop()


def test_stopping_does_not_wait_for_rewards() -> None:
    algorithm = remote_config().training(reward_client_factory=Outage, reward_timeout_s=90.0).build_algo()
    source, runners = algorithm._source, algorithm.env_runner_group
    source._ask_the_idle(0)
    while len(source._idle) < 2:
        ready = runners.fetch_ready_async_reqs(tags=fragments.TAG, timeout_seconds=1)
        source._idle.update(runner for runner, _ in ready)
    source._ask_the_idle(0)  # which waits for the rewards of the first one
    time.sleep(2)
    start = time.monotonic()
    algorithm.stop()
    assert time.monotonic() - start < 30


def test_without_rewards_a_runner_is_given_back_until_they_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fragments, "GROW_EVERY_S", 0.5)
    monkeypatch.setattr(judged, "MAX_DROPPED_IN_A_ROW", 100)
    back = tmp_path / "back"
    settings = remote_config().training(reward_client_factory=partial(OutageUntil, back), reward_timeout_s=0.5)
    algorithm = settings.training(planned_env_runners=2, fewest_env_runners=1).build_algo()
    runners, end = algorithm.env_runner_group, time.monotonic() + 120

    def receive_until(count: int) -> None:
        while runners.num_healthy_remote_env_runners() != count:
            assert time.monotonic() < end
            algorithm.receive(algorithm._source.fetch(0))

    receive_until(1)
    for _ in range(4):  # it is not given back itself, and no other joins while CPUs are free
        assert not algorithm.receive(algorithm._source.fetch(0))
        time.sleep(0.5)
    assert runners.num_remote_env_runners() == 1
    back.touch()
    receive_until(2)
    assert sum(fragment.steps for fragment in algorithm.arrived) > 0
    algorithm.stop()
