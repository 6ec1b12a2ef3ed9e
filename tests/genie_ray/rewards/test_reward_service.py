"""The service on real Ray Serve: by handle, through RLlib, over HTTP; with weights swapped and replicas killed."""

import dataclasses
import io
import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from ray import serve
from ray.tune import register_env

from genie_ray.rewards import wire
from genie_ray.rewards.client import ServeRewardClient
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.http import HttpConfig
from genie_ray.rewards.judges import UncertaintyJudge
from genie_ray.rewards.service import check_checkpoint, find_service, reward_service
from genie_ray.rewards.serving import http_service
from genie_ray.rewards.windows import unfold
from policies.autoexplore.algorithm import AutoExploreConfig, AutoExploreLearningConfig
from policies.autoexplore.module import AutoExploreModuleConfig
from policies.rewards import RewardUnavailableError
from tests.genie_ray.rewards.small_world import (
    FITS,
    SCALE,
    TOP_K,
    assert_rewards,
    fragment,
    fragments,
    rewards_by_hand,
    world_model,
)
from tests.policies.toys import NUM_ACTIONS, ShowsAction
from world_model.checkpoint import save, weights_hash
from world_model.genie import GenieReduxG

APP, TOKEN = "test-rewards", "a token of the tests"
Factory = Callable[[], ServeRewardClient]
CONFIG = RewardConfig(top_k_fraction=TOP_K, scale=SCALE, batch_size=7, cpus=0.5, gpus=0.0)


@pytest.fixture(scope="module")
def models() -> list[GenieReduxG]:
    return [world_model(seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def checkpoints(models: list[GenieReduxG], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("world_models")
    for number, model in enumerate(models):
        save(model, root / str(number), provenance={})
    return [root / "0", root / "1"]


@pytest.fixture(scope="module")
def url(checkpoints: list[Path], ray_session: None) -> Iterator[str]:
    """One Serve for this module, with HTTP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    http = HttpConfig(port=port, max_request_mb=1, token=TOKEN)
    with http_service(checkpoints[0], CONFIG, http, app_name=APP) as url:
        yield url


@pytest.fixture(scope="module")
def factory(url: str) -> Factory:
    """Of clients that ask by handle."""
    return find_service(APP, **FITS)


def stats(client: ServeRewardClient) -> dict[str, Any]:
    return client.handle.stats.remote().result(timeout_s=30)


@pytest.mark.slow
def test_service_answers_with_the_models_rewards(factory: Factory, models: list[GenieReduxG]) -> None:
    client = pickle.loads(pickle.dumps(factory))()
    answer = client.submit(*fragments(28, 5), maps=True).answer(timeout_s=30)
    assert_rewards(answer.rewards, models[0], *fragments(28, 5))
    assert client.version == answer.version == weights_hash(models[0])
    assert answer.maps is not None
    assert answer.maps[0].shape == (28, 2, 2)
    assert answer.attempts == 1
    assert stats(client)["windows"] == 27


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
    """Three callers, SIGKILL in the middle: every fragment gets the model's rewards, some after being asked again."""
    asked = [fragments(500 + number, 9) for number in range(3)]
    judge = UncertaintyJudge(models[0], CONFIG, "bare")
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
    while stats(client)["waiting_requests"] < 2:
        time.sleep(0.01)
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 90
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
    factory: Factory, checkpoints: list[Path], models: list[GenieReduxG]
) -> None:
    name = "late-rewards"
    client = ServeRewardClient(name)
    with pytest.raises(RewardUnavailableError, match=name):
        client.submit(*fragments(5)).result(timeout_s=0.5)
    assert client.counts["failed"] == 1
    with pytest.raises(ValueError, match=f"no reward service '{name}' on this cluster; running: {APP}"):
        find_service(name, **FITS)
    late = client.submit(*fragments(5))  # before it is there
    with reward_service(checkpoints[0], CONFIG, app_name=name, **FITS) as service:
        answer = late.answer(timeout_s=30)
        assert_rewards(answer.rewards, models[0], *fragments(5))
        assert answer.attempts > 1
        before = stats(client)["pid"]
        assert service.swap(checkpoints[1]) == weights_hash(models[1])
        answer = pickle.loads(pickle.dumps(service))().submit(*fragments(10)).answer(timeout_s=30)
        assert answer.version == weights_hash(models[1])
        assert_rewards(answer.rewards, models[1], *fragments(10))
        # Entered again it takes these settings; it was running before, so it still is, in the same process.
        with reward_service(checkpoints[0], dataclasses.replace(CONFIG, scale=2 * SCALE), app_name=name, **FITS):
            doubled = client.submit(*fragments(10)).result(timeout_s=30)
        assert_rewards([doubled[0] / 2], models[0], *fragments(10))
        assert stats(client)["pid"] == before
        with pytest.raises(ValueError, match="is no checkpoint"):
            service.swap(checkpoints[0] / "absent")
    # Only what was started is stopped.
    assert set(serve.status().applications) == {APP}
    with pytest.raises(RewardUnavailableError):
        client.submit(*fragments(5)).result(timeout_s=0.5)


def test_a_running_service_is_found_if_it_fits(factory: Factory, models: list[GenieReduxG]) -> None:
    found = pickle.loads(pickle.dumps(find_service(APP, **FITS)))()
    assert_rewards(found.submit(*fragments(6)).result(timeout_s=30), models[0], *fragments(6))
    with pytest.raises(ValueError, match="'test-rewards' has num_actions 4; the environments have 5"):
        find_service(APP, **{**FITS, "num_actions": 5})


def test_errors_inside_the_model_are_not_hidden(factory: Factory) -> None:
    frames, actions = fragment(5)
    with pytest.raises(ValueError, match="frames have shape"):
        factory().submit([frames[:, ::2]], [actions]).result(timeout_s=30)


def test_over_http_it_answers_as_by_handle(url: str, models: list[GenieReduxG]) -> None:
    frames, actions = fragments(9, 2, 4)
    body = wire.pack_question(wire.Question(frames=frames, actions=actions, episodes=["a", "b", "c"]))
    header = {"Authorization": f"Bearer {TOKEN}"}
    response = requests.post(f"{url}/v1/rewards", body, params={"maps": "true"}, headers=header, timeout=30)
    assert response.status_code == 200
    answer = wire.unpack_answer(response.content, max_bytes=1_000_000)
    assert_rewards(answer.rewards, models[0], frames, actions)
    assert answer.version == weights_hash(models[0])
    assert answer.statistics["entropy_top"][0].shape == (9,)
    assert answer.maps is not None
    assert answer.maps[2].shape == (4, 2, 2)
    served = requests.get(f"{url}/v1/service", headers=header, timeout=30).json()
    assert {name: served[name] for name in FITS} == FITS
    assert requests.get(f"{url}/v1/stats", headers=header, timeout=30).json()["windows"] >= 7
    described = requests.get(f"{url}/openapi.json", timeout=30).json()
    assert {"/v1/rewards", "/v1/service", "/v1/stats"} <= described["paths"].keys()
    assert "frames_0   uint8" in described["info"]["description"]


@pytest.mark.parametrize(
    ("body", "token", "status", "reason"),
    [
        (b"", None, 401, "no token, or another"),
        (b"", "another token here", 401, "no token, or another"),
        (b"no archive", TOKEN, 400, "no .npz file"),
        (wire._pack({"frames_0": np.zeros(3)}), TOKEN, 400, "allowed: frames_0, actions_0"),
        (bytes(2 * 1024**2), TOKEN, 413, "more than 1 MB"),
        (
            wire.pack_question(wire.Question(frames=[np.zeros((6, 8, 8, 3))], actions=[np.zeros(5)], episodes=None)),
            TOKEN,
            400,
            r"allowed with 5 actions: [6, 16, 16, 3], uint8",
        ),
    ],
)
def test_over_http_what_cannot_be_answered_is_refused(
    url: str, body: bytes, token: str | None, status: int, reason: str
) -> None:
    header = {} if token is None else {"Authorization": f"Bearer {token}"}
    response = requests.post(f"{url}/v1/rewards", body, headers=header, timeout=30)
    assert response.status_code == status
    assert reason in response.json()["detail"]


def test_a_small_file_that_unpacks_to_a_large_one_is_refused() -> None:

    file = io.BytesIO()
    np.savez_compressed(file, frames_0=np.zeros(10_000_000, np.uint8), actions_0=np.zeros(1, int))
    assert len(file.getvalue()) < 20_000
    with pytest.raises(ValueError, match="unpacks to 100"):
        wire.unpack_question(file.getvalue(), max_bytes=1_000_000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host": "0.0.0.0"}, "host is 0.0.0.0 and no token is set"),
        ({"token": "short"}, "has 5 characters; allowed: 16 or more"),
        ({"port": 0}, "port is 0"),
    ],
)
def test_http_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HttpConfig(**settings)
    assert HttpConfig(host="::1").token is None


def test_checkpoints_that_do_not_fit_are_refused(
    checkpoints: list[Path], models: list[GenieReduxG], tmp_path: Path
) -> None:
    assert check_checkpoint(checkpoints[0], **FITS) == weights_hash(models[0])
    with pytest.raises(ValueError, match="has frame size 16; the environments have 64"):
        check_checkpoint(checkpoints[0], frame_size=64, num_actions=NUM_ACTIONS)
    with pytest.raises(ValueError, match="has number of actions 4; the environments have 5"):
        check_checkpoint(checkpoints[0], frame_size=16, num_actions=5)
    save(models[0].tokenizer, tmp_path / "tokenizer", provenance={})
    with pytest.raises(ValueError, match="holds a Tokenizer, a GenieReduxG is needed"):
        check_checkpoint(tmp_path / "tokenizer", **FITS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpus": 1.0}, "wants 1 GPUs; the cluster has 0"),
        ({"kind": "vae"}, "no state directory; needed by kind 'vae'"),
    ],
)
def test_what_cannot_start_is_refused(
    checkpoints: list[Path], ray_session: None, changes: dict[str, Any], message: str
) -> None:
    with (
        pytest.raises(ValueError, match=message),
        reward_service(checkpoints[0], dataclasses.replace(CONFIG, **changes), app_name="refused", **FITS),
    ):
        pass
