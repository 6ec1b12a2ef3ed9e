"""The reward service against the bare model, through Serve and through RLlib."""

import dataclasses
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray import serve
from ray.tune import register_env

from genie_ray.reward_service import (
    RewardConfig,
    ServeRewardClient,
    check_checkpoint,
    deploy,
    fragment_rewards,
    reward_service,
    windows,
)
from policies.autoexplore.algorithm import AutoExploreConfig, AutoExploreLearningConfig
from policies.autoexplore.module import AutoExploreModuleConfig
from policies.rewards import RewardUnavailableError
from tests.policies.toys import NUM_ACTIONS, SIZE, ShowsAction
from world_model.checkpoint import save, weights_hash
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieReduxG, GenieReduxGConfig
from world_model.quantizer import QuantizerConfig
from world_model.tokenizer import TokenizerConfig
from world_model.uncertainty import uncertainty_reward

APP = "test-rewards"
FITS = {"frame_size": SIZE, "num_actions": NUM_ACTIONS}
CONFIG = RewardConfig(top_k_fraction=0.5, scale=2.0, batch_size=7, cpus=0.5)


def world_model(seed: int) -> GenieReduxG:
    """A tiny model with weights so large that its rewards differ from window to window."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"dim": 16, "blocks": 1, "heads": 2, "head_dim": 8, "max_frames": 5}
    model = GenieReduxG(
        GenieReduxGConfig(
            tokenizer=TokenizerConfig(
                frame_size=SIZE, patch_size=8, quantizer=QuantizerConfig(kind="fsq", levels=(4, 4)), **sizes
            ),
            dynamics=DynamicsConfig(num_actions=NUM_ACTIONS, **sizes),
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.eval()


@pytest.fixture(scope="module")
def models() -> list[GenieReduxG]:
    return [world_model(seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def checkpoints(models: list[GenieReduxG], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("world_models")
    for i, model in enumerate(models):
        save(model, root / str(i), provenance={})
    return [root / "0", root / "1"]


@pytest.fixture(scope="module")
def factory(checkpoints: list[Path], ray_session: None) -> Iterator[Callable[[], ServeRewardClient]]:
    with reward_service(checkpoints[0], CONFIG, app_name=APP, **FITS) as made:
        yield made


def fragment(actions: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (actions + 1, SIZE, SIZE, 3), np.uint8), rng.integers(0, NUM_ACTIONS, actions)


def reward_by_hand(model: GenieReduxG, frames: np.ndarray, actions: np.ndarray, t: int) -> float:
    """The reward of the transition into frame t, from the definition: frames t−4, t−3 and actions t−4 … t−1."""
    uncertainty_BN = model.uncertainty(
        torch.from_numpy(np.stack([frames[t - 4], frames[t - 3]])[None]),
        torch.from_numpy(actions[[t - 4, t - 3, t - 2, t - 1]].astype(np.int64)[None]),
    )
    return float(uncertainty_reward(uncertainty_BN, top_k_fraction=0.5, scale=2.0))


def replicas() -> set[str]:
    names = (actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True))
    return {name for name in names if name.startswith(f"SERVE_REPLICA::{APP}")}


def test_windows_by_hand() -> None:
    frames = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    primes, actions = windows(frames, np.array([10, 11, 12, 13, 14]))
    np.testing.assert_array_equal(primes[..., 0, 0, 0], [[0, 1], [1, 2]])
    np.testing.assert_array_equal(actions, [[10, 11, 12, 13], [11, 12, 13, 14]])


@pytest.mark.parametrize("length", [0, 1, 3])
def test_short_fragments_have_no_window(length: int) -> None:
    primes, actions = windows(*fragment(length))
    assert primes.shape == (0, 2, SIZE, SIZE, 3)
    assert actions.shape == (0, 4)


def test_fragment_rewards_are_the_models(models: list[GenieReduxG]) -> None:
    fragments = [fragment(length, seed=length) for length in (12, 2, 4, 9)]
    rewards = fragment_rewards(models[0], CONFIG, [f for f, _ in fragments], [a for _, a in fragments])
    for (frames, actions), reward in zip(fragments, rewards, strict=True):
        assert reward.dtype == np.float32
        assert np.isnan(reward[:3]).all()
        expected = [reward_by_hand(models[0], frames, actions, t) for t in range(4, len(actions) + 1)]
        np.testing.assert_allclose(reward[3:], expected, atol=1e-5)


def test_rewards_tell_actions_apart(models: list[GenieReduxG]) -> None:
    """Else the alignment tests could not fail."""
    frames, actions = fragment(30)
    rewards, shifted = (
        fragment_rewards(models[0], CONFIG, [frames], [taken])[0][3:] for taken in (actions, np.roll(actions, 1))
    )
    assert (np.abs(rewards - shifted) > 1e-3).mean() > 0.5


@pytest.mark.slow
def test_service_answers_with_the_models_rewards(factory: Any, models: list[GenieReduxG]) -> None:
    client = pickle.loads(pickle.dumps(factory))()
    frames, actions = zip(*(fragment(length, seed=length) for length in (28, 5)), strict=True)
    rewards = client.submit(list(frames), list(actions)).result(timeout_s=30)
    expected = fragment_rewards(models[0], CONFIG, list(frames), list(actions))
    for one, other in zip(rewards, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert client.version == weights_hash(models[0])


@pytest.mark.slow
def test_explorers_transitions_get_their_own_rewards(factory: Any, models: list[GenieReduxG]) -> None:
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
        frames, actions = episode.get_observations(), episode.get_actions()
        expected = [reward_by_hand(models[0], frames, actions, t) for t in range(4, len(actions) + 1)]
        assert np.isnan(episode.get_rewards()[:3]).all()
        np.testing.assert_allclose(episode.get_rewards()[3:], expected, atol=1e-5)


@pytest.mark.slow
def test_new_weights_and_settings_without_a_restart(
    factory: Any, checkpoints: list[Path], models: list[GenieReduxG]
) -> None:
    client, before = factory(), replicas()
    frames, actions = fragment(10)
    old = client.submit([frames], [actions]).result(timeout_s=30)[0]
    with reward_service(checkpoints[1], dataclasses.replace(CONFIG, scale=4.0), app_name=APP, **FITS):
        new = client.submit([frames], [actions]).result(timeout_s=30)[0]
        assert client.version == weights_hash(models[1])
        expected = 2 * fragment_rewards(models[1], CONFIG, [frames], [actions])[0]
        np.testing.assert_allclose(new, expected, atol=1e-5)
        assert np.abs(new - 2 * old)[3:].max() > 1e-3
    # It was running before, so it still is, in the same process.
    assert APP in serve.status().applications
    assert replicas() == before
    deploy(checkpoints[0], CONFIG, version=weights_hash(models[0]), app_name=APP)
    again = client.submit([frames], [actions]).result(timeout_s=30)[0]
    np.testing.assert_array_equal(again, old)


@pytest.mark.slow
def test_a_missing_service_is_unavailable_and_found_once_it_is_there(
    factory: Any, checkpoints: list[Path], models: list[GenieReduxG]
) -> None:
    client = ServeRewardClient("late-rewards")
    frames, actions = fragment(5)
    with pytest.raises(RewardUnavailableError, match="late-rewards"):
        client.submit([frames], [actions]).result(timeout_s=5)
    with reward_service(checkpoints[1], CONFIG, app_name="late-rewards", **FITS):
        client.submit([frames], [actions]).result(timeout_s=30)
        assert client.version == weights_hash(models[1])
    # Only what was started is stopped.
    assert set(serve.status().applications) == {APP}
    with pytest.raises(RewardUnavailableError):
        client.submit([frames], [actions]).result(timeout_s=5)


def test_errors_inside_the_model_are_not_hidden(factory: Any) -> None:
    frames, actions = fragment(5)
    with pytest.raises(Exception, match="frames have shape") as caught:
        factory().submit([frames[:, ::2]], [actions]).result(timeout_s=30)
    assert not isinstance(caught.value, RewardUnavailableError)


def test_checkpoints_that_do_not_fit_are_refused(
    checkpoints: list[Path], models: list[GenieReduxG], tmp_path: Path
) -> None:
    assert check_checkpoint(checkpoints[0], **FITS) == weights_hash(models[0])
    with pytest.raises(ValueError, match="has frame size 16; the environments have 64"):
        check_checkpoint(checkpoints[0], frame_size=64, num_actions=NUM_ACTIONS)
    with pytest.raises(ValueError, match="has number of actions 4; the environments have 5"):
        check_checkpoint(checkpoints[0], frame_size=SIZE, num_actions=5)
    save(models[0].tokenizer, tmp_path / "tokenizer", provenance={})
    with pytest.raises(ValueError, match="holds a Tokenizer, a GenieReduxG is needed"):
        check_checkpoint(tmp_path / "tokenizer", **FITS)


def test_too_large_a_service_is_refused(checkpoints: list[Path], ray_session: None) -> None:
    greedy = dataclasses.replace(CONFIG, gpus=1.0)
    with (
        pytest.raises(ValueError, match="wants 1 GPUs; the cluster has 0"),
        reward_service(checkpoints[0], greedy, app_name=APP, **FITS),
    ):
        pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k_fraction": 0.0}, "top_k_fraction is 0.0"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"gpus": -1.0}, "gpus is -1.0"),
    ],
)
def test_config_is_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardConfig(**settings)
