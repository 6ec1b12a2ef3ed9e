"""The service on real Ray Serve: by handle, through RLlib; with weights swapped and replicas killed."""

import dataclasses
import os
import pickle
import shutil
import signal
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import torch
from ray import serve
from ray.tune import register_env

from genie_ray.rewards import service as service_module
from genie_ray.rewards.client import ServeRewardClient
from genie_ray.rewards.http.api import HttpConfig
from genie_ray.rewards.http.serving import http_service
from genie_ray.rewards.judges import UncertaintyJudge
from genie_ray.rewards.memory import RewardMemory, restore
from genie_ray.rewards.service import (
    RewardService,
    find_service,
    remove_services,
    remove_what_was_left,
    reward_service,
    service_name,
)
from genie_ray.rewards.windows import unfold
from policies.autoexplore.algorithm import AutoExploreConfig
from policies.autoexplore.config import AutoExploreLearningConfig, AutoExploreModuleConfig
from policies.baselines.config import CuriosityConfig
from policies.rewards import RewardFuture, RewardUnavailableError
from tests.genie_ray.rewards.small_world import (
    APP,
    FITS,
    SCALE,
    SERVED,
    TOKEN,
    Factory,
    assert_rewards,
    fragment,
    fragments,
    rewards_by_hand,
)
from tests.policies.toys import ShowsAction
from world_model.checkpoint import weights_hash
from world_model.genie import GenieReduxG


def stats(client: ServeRewardClient) -> dict[str, Any]:
    return client.ask("stats", timeout_s=60)


@pytest.mark.slow
def test_service_answers_with_the_models_rewards(factory: Factory, models: list[GenieReduxG]) -> None:
    client = pickle.loads(pickle.dumps(factory))()
    answer = client.submit(*fragments(28, 5), maps=True).answer(timeout_s=30)
    assert_rewards(answer.rewards, models[0], *fragments(28, 5))
    assert client.version == answer.version == weights_hash(models[0])
    assert answer.maps is not None
    assert answer.maps[0].shape == (28, 2, 2)
    assert answer.attempts == 1
    before = stats(client)["windows"]
    client.submit(*fragments(28, 5)).result(timeout_s=30)
    assert stats(client)["windows"] == before + 27


@pytest.mark.slow
def test_explorers_transitions_get_their_own_rewards(factory: Factory, models: list[GenieReduxG]) -> None:
    """Through RLlib and Serve: each recorded reward is the model's, of that transition's window in that episode."""
    register_env("shows_action", ShowsAction)
    algorithm = (
        AutoExploreConfig()
        .environment("shows_action", env_config={"length": 30})
        .training(
            learning=AutoExploreLearningConfig(
                num_envs=2, steps_per_epoch=60, fragment_length=20, updates_per_epoch=1, sequences_per_update=2
            ),
            network=AutoExploreModuleConfig(channels=(4, 4), lstm_size=8),
            reward_client_factory=factory,
        )
        .build_algo()
    )
    for _ in range(2):
        algorithm.train()
    episodes = list(algorithm.replay.episodes)
    algorithm.stop()
    assert len(episodes) >= 4
    for episode in episodes:
        expected = rewards_by_hand(models[0], episode.get_observations(), episode.get_actions())
        np.testing.assert_allclose(episode.get_rewards(), expected, atol=1e-5)


@pytest.mark.slow
def test_a_replica_killed_under_load_costs_no_reward(factory: Factory, models: list[GenieReduxG]) -> None:
    """Three callers, SIGKILL in the middle: every fragment gets the model's rewards, some after a retry."""
    asked = [fragments(500 + number, 9) for number in range(3)]
    judge = UncertaintyJudge(models[0], SERVED, "bare")
    expected = [[judge.judge(unfold(*one)).rewards_M for one in zip(*several, strict=True)] for several in asked]
    killed, client = stats(factory())["pid"], factory()
    stop = threading.Event()
    answers: list[tuple[int, Any]] = []
    counts: list[dict[str, int]] = []

    def call(number: int) -> None:
        client = factory()
        while not stop.is_set():
            answers.append((number, client.submit(*asked[number]).answer(timeout_s=120)))
        counts.append(client.counts)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(3)]
    for caller in callers:
        caller.start()
    deadline = time.monotonic() + 90
    while stats(client)["waiting_requests"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(killed, signal.SIGKILL)
    while max((answer.attempts for _, answer in list(answers)), default=1) == 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    stop.set()
    for caller in callers:
        caller.join(120)
    assert stats(client)["pid"] != killed
    assert any(answer.attempts > 1 for _, answer in answers)
    for number, answer in answers:
        for given, right in zip(answer.rewards, expected[number], strict=True):
            assert np.isnan(given[:3]).all()
            np.testing.assert_allclose(given[3:], right, atol=1e-4)
        assert answer.version == weights_hash(models[0])
    assert sum(one["requests"] for one in counts) == sum(one["answered"] for one in counts) == len(answers)


@pytest.mark.slow
def test_a_service_comes_changes_its_weights_and_goes(
    factory: Factory, checkpoints: list[Path], models: list[GenieReduxG], tmp_path: Path
) -> None:
    name = "late-rewards"
    client = ServeRewardClient(name)
    with pytest.raises(RewardUnavailableError, match=name):
        client.submit(*fragments(5)).result(timeout_s=0.5)
    assert client.counts["failed"] == 1
    with pytest.raises(ValueError, match=f"no reward service '{name}' on this cluster; running: {APP}"):
        find_service(name, **FITS)
    late = client.submit(*fragments(5))  # before the service has started
    with reward_service(checkpoints[0], SERVED, app_name=name, **FITS) as service:
        answer = late.answer(timeout_s=30)
        assert_rewards(answer.rewards, models[0], *fragments(5))
        assert answer.attempts > 1
        before = stats(client)["pid"]
        assert service.swap(checkpoints[1]) == weights_hash(models[1])
        answer = pickle.loads(pickle.dumps(service))().submit(*fragments(10)).answer(timeout_s=30)
        assert answer.version == weights_hash(models[1])
        assert_rewards(answer.rewards, models[1], *fragments(10))
        assert stats(client)["pid"] == before
        with pytest.raises(ValueError, match="is not a checkpoint"):
            service.swap(checkpoints[0] / "absent")
        # A checkpoint that the replica cannot load is refused: its current weights stay.
        broken = shutil.copytree(checkpoints[0], tmp_path / "broken")
        weights = broken / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(
            ValueError, match=f"'{name}' keeps its current weights: checkpoint {broken} is damaged"
        ) as told:
            service.swap(broken)
        assert "\n" not in str(told.value)
        assert_rewards(client.submit(*fragments(10)).result(timeout_s=30), models[1], *fragments(10))
        assert stats(client)["pid"] == before
        # No other run can take its name, but a run can remove what it left behind when it was killed.
        with (
            pytest.raises(ValueError, match=f"'{name}' already runs on this cluster"),
            reward_service(checkpoints[0], SERVED, app_name=name, **FITS),
        ):
            pass
        doubled = dataclasses.replace(SERVED, scale=2 * SCALE, cpus=0.1)
        with reward_service(checkpoints[0], doubled, app_name=f"{service_name(tmp_path)}-1", **FITS) as other:
            twice = other().submit(*fragments(10)).result(timeout_s=30)
            assert_rewards([twice[0] / 2], models[0], *fragments(10))
            remove_services(service_name(tmp_path / "other"))
            assert_rewards(client.submit(*fragments(10)).result(timeout_s=30), models[1], *fragments(10))
            assert len(serve.status().applications) == 3
            remove_what_was_left(service_name(tmp_path))  # Serve stays, as others use it
            assert set(serve.status().applications) == {APP, name}
    # Only what was started is stopped.
    assert set(serve.status().applications) == {APP}
    with pytest.raises(RewardUnavailableError):
        client.submit(*fragments(5)).result(timeout_s=0.5)


@pytest.mark.slow
def test_what_was_learned_is_kept_though_the_run_fails(url: str, checkpoints: list[Path], tmp_path: Path) -> None:
    config = dataclasses.replace(SERVED, kind="rf", curiosity=CuriosityConfig(features=8, hidden=8, residual_blocks=1))

    def run() -> None:
        with reward_service(checkpoints[0], config, state=tmp_path, **FITS) as service:
            service().submit(*fragments(10)).result(timeout_s=30)  # one batch
            service().submit(*fragments(10), remember=False).result(timeout_s=30)
            raise KeyError("of the run")

    with pytest.raises(KeyError, match="of the run"):
        run()
    assert torch.load(tmp_path / "rf.pt", weights_only=True)["state"]["updates"] == 1


@pytest.mark.long
def test_replicas_are_added_under_load(url: str, checkpoints: list[Path], models: list[GenieReduxG]) -> None:
    config = dataclasses.replace(SERVED, max_replicas=2, cpus=0.1)
    frames, actions = fragments(10)
    many = [frames * 30, actions * 30]
    with reward_service(checkpoints[0], config, **FITS) as service:
        client, asked, judges = service(), deque[RewardFuture](), set[int]()
        deadline = time.monotonic() + 120
        while len(judges) < 2 and time.monotonic() < deadline:
            while len(asked) < 12:  # above what one replica should have in flight
                asked.append(client.submit(*many))
            assert_rewards(asked.popleft().result(timeout_s=60)[:1], models[0], frames, actions)
            judges.add(stats(client)["pid"])
        assert len(judges) == 2
        for late in asked:
            assert_rewards(late.result(timeout_s=60)[-1:], models[0], frames, actions)


@pytest.mark.slow
def test_what_rewards_remember_goes_with_a_checkpoint(url: str, checkpoints: list[Path], tmp_path: Path) -> None:
    config = dataclasses.replace(SERVED, novelty="lifelong", cpus=0.0)
    serving: dict[str, Any] = {**FITS, "state": tmp_path / "rewards"}

    def ask(service: RewardService, **how: bool) -> np.ndarray:
        return service().submit(*fragments(12), episodes=["a"], **how).result(timeout_s=60)[0]

    restore(tmp_path / "rewards", [], config)
    with reward_service(checkpoints[0], config, **serving) as service:
        first = ask(service)
        saved = RewardMemory(service).get_state()
        unremembered = [ask(service, remember=False) for _ in range(2)]
        second = ask(service)
        with pytest.raises(ValueError, match=r"remembers play .kind 'entropy', novelty 'lifelong'"):
            find_service(service.app_name, **FITS, asked_again=True)
    np.testing.assert_array_equal(*unremembered)
    assert (unremembered[0][3:] < first[3:]).all()
    assert (second[3:] <= unremembered[0][3:]).all()
    (tmp_path / "rewards" / "rf.pt").write_bytes(b"of another time")
    restore(tmp_path / "rewards", [{"of": "another companion"}, saved], config)
    assert {path.name for path in (tmp_path / "rewards").iterdir()} == set(saved["reward_memory"])
    with reward_service(checkpoints[0], config, **serving) as service:
        np.testing.assert_array_equal(ask(service), second)
    restore(tmp_path / "rewards", [], config)
    with reward_service(checkpoints[0], config, **serving) as service:
        np.testing.assert_array_equal(ask(service), first)


def test_another_serve_is_left_alone(url: str, checkpoints: list[Path]) -> None:
    with (
        pytest.raises(ValueError, match=f"Ray Serve already runs on this cluster .applications: {APP}"),
        http_service(checkpoints[0], SERVED, HttpConfig()),
    ):
        pass


def test_a_running_service_is_found_if_it_fits(factory: Factory, models: list[GenieReduxG]) -> None:
    found = pickle.loads(pickle.dumps(find_service(APP, **FITS)))()
    assert_rewards(found.submit(*fragments(6)).result(timeout_s=30), models[0], *fragments(6))
    with pytest.raises(ValueError, match="'test-rewards' has num_actions 4; the environments have 5"):
        find_service(APP, **{**FITS, "action_names": ("A", "B", "C", "D", "E")})


@pytest.mark.slow
def test_a_service_that_hangs_is_told_from_one_that_is_not_there(
    url: str, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "FIND_TIMEOUT_S", 0.5)
    replica, header = stats(factory())["pid"], {"Authorization": f"Bearer {TOKEN}"}
    os.kill(replica, signal.SIGSTOP)
    try:
        with pytest.raises(ValueError, match=r"'test-rewards' exists .RUNNING. but is busy or restarting"):
            find_service(APP, **FITS)
        response = requests.get(f"{url}/v1/service", headers=header, timeout=30)
    finally:
        os.kill(replica, signal.SIGCONT)
    assert (response.status_code, response.json()["detail"]) == (503, "TimeoutError")
    assert response.headers["Retry-After"] == "1"
    assert stats(factory())["pid"] == replica


def test_errors_inside_the_model_are_not_hidden(factory: Factory) -> None:
    frames, actions = fragment(5)
    with pytest.raises(ValueError, match="frames have shape"):
        factory().submit([frames[:, ::2]], [actions]).result(timeout_s=30)
