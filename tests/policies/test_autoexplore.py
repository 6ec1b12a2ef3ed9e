"""AutoExplore end to end through RLlib, on an environment whose frames show which action led to them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.tune import register_env

from policies.autoexplore import env_runner
from policies.autoexplore.algorithm import AutoExplore, AutoExploreConfig, AutoExploreLearningConfig
from policies.autoexplore.env_runner import CuriosityEnvRunner
from policies.autoexplore.module import AutoExploreModuleConfig
from policies.exploration import load_module
from policies.rewards import RewardUnavailableError
from tests.policies.toys import NUM_ACTIONS, ActionClient, Ready, ShowsAction

pytestmark = pytest.mark.usefixtures("ray_session")

LEARNING = AutoExploreLearningConfig(
    num_envs=4,
    steps_per_epoch=40,
    fragment_length=20,
    updates_per_epoch=20,
    sequences_per_update=16,
    sequence_length=10,
    burn_in=2,
    learning_rate=3e-3,
)


def config(*, updates: int = 20, client: Any = ActionClient, **env_config: Any) -> AutoExploreConfig:
    register_env("shows_action", ShowsAction)
    return (
        AutoExploreConfig()
        .environment("shows_action", env_config=env_config)
        .training(
            learning=replace(LEARNING, updates_per_epoch=updates),
            network=AutoExploreModuleConfig(channels=(8, 8), lstm_size=16),
            reward_client_factory=client,
        )
        .debugging(seed=0)
    )


def weights(algorithm: AutoExplore) -> dict[str, np.ndarray]:
    return algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID]


def share_of_best_action(algorithm: AutoExplore) -> float:
    """How often the policy takes the rewarded action after a short training: the mean of the rewards."""
    for _ in range(4):
        result = algorithm.train()
    algorithm.stop()
    return float(result["exploration"]["reward_mean"])


@pytest.fixture(scope="module")
def trained() -> Iterator[AutoExplore]:
    """Two epochs of play with terminating episodes that are longer than a fragment."""
    algorithm = config(updates=2, terminates=True).build_algo()
    for _ in range(2):
        algorithm.train()
    yield algorithm
    algorithm.stop()


@pytest.mark.slow
def test_finds_the_rewarded_action() -> None:
    assert share_of_best_action(config().build_algo()) > 0.7


class ForgetsActions(CuriosityEnvRunner):
    """Hands on freshly drawn actions in place of those that earned the rewards: then nothing can be learned."""

    rng = np.random.default_rng(0)

    def sample(self, **kwargs: Any) -> list[Any]:
        episodes = super().sample(**kwargs)
        for episode in episodes:
            episode.actions.data = self.rng.integers(NUM_ACTIONS, size=len(episode.actions.data))
        return episodes


@pytest.mark.slow
def test_finds_nothing_if_the_actions_are_not_those_taken() -> None:
    assert share_of_best_action(config().env_runners(env_runner_cls=ForgetsActions).build_algo()) < 0.5


def test_rewards_are_those_of_their_transitions(trained: AutoExplore) -> None:
    """Across fragments: only an episode's first three transitions have no reward."""
    assert trained.replay.get_num_timesteps() >= 3 * 80 - 20
    for episode in trained.replay.episodes:
        actions = episode.get_actions()
        np.testing.assert_array_equal(episode.get_observations()[1:, 0, 0, 0], 50 * (actions + 1))
        assert episode.t_started == 0
        assert len(episode) > LEARNING.fragment_length or not episode.is_done
        assert np.isnan(episode.get_rewards()[:3]).all()
        np.testing.assert_array_equal(episode.get_rewards()[3:], actions[3:] == 2)


def test_learner_gets_whole_sequences(trained: AutoExplore) -> None:
    """The batch's columns fit each other, padding is masked, and the LSTM state is the stored one."""
    sequences = trained._sample_sequences()
    expected = []
    for sequence in sequences:
        state = np.zeros(16)
        if sequence.t_started:
            state = sequence.get_extra_model_outputs(Columns.STATE_OUT, -1, neg_index_as_lookback=True)["h"]
        expected.append((len(sequence), sequence.is_terminated, sequence.t_started, state))
    rewards = [s.get_rewards().copy() for s in sequences]
    learner = trained.learner_group._learner
    batch = learner._learner_connector(rl_module=learner.module, batch={}, episodes=sequences, shared_data={})
    batch = batch[DEFAULT_MODULE_ID]
    rows, row_length = LEARNING.sequences_per_update, LEARNING.burn_in + LEARNING.sequence_length + 1
    assert batch[Columns.OBS].shape == (rows, row_length, 16, 16, 3)
    assert batch[Columns.OBS].dtype == torch.uint8
    assert any(length < row_length - 1 for length, *_ in expected)
    for b, (length, terminated, started, state) in enumerate(expected):
        assert batch[Columns.LOSS_MASK][b].tolist() == [True] * length + [False] * (row_length - length)
        assert batch[Columns.TERMINATEDS][b, length - 1].item() == terminated
        assert batch[Columns.TERMINATEDS][b].sum() == terminated
        shown = batch[Columns.OBS][b, 1 : length + 1, 0, 0, 0]
        torch.testing.assert_close(shown.long(), 50 * (batch[Columns.ACTIONS][b, :length].long() + 1))
        assert batch[Columns.OBS][b, 0, 0, 0, 1].item() == started
        torch.testing.assert_close(batch[Columns.REWARDS][b, :length].numpy(), rewards[b])
        assert (batch[Columns.ACTION_LOGP][b, :length] < 0).all()
        np.testing.assert_array_equal(batch[Columns.STATE_IN]["h"][b], state)


def test_undefined_rewards_are_neutral(trained: AutoExplore) -> None:
    starts = [s for _ in range(20) for s in trained._sample_sequences() if s.t_started == 0]
    assert starts
    for sequence in starts:
        assert not sequence.get_rewards()[:3].any()
        assert sequence.get_rewards()[3:].all()
    # The replay buffer keeps them as they came.
    assert all(np.isnan(episode.get_rewards()[0]) for episode in trained.replay.episodes)


def test_restored_algorithm_goes_on(trained: AutoExplore, tmp_path: Path) -> None:
    trained.save_to_path(tmp_path)
    restored = config(updates=2, terminates=True).build_algo()
    restored.restore_from_path(tmp_path)
    try:
        assert restored.iteration == trained.iteration == 2
        assert restored.replay.get_num_timesteps() == trained.replay.get_num_timesteps()
        assert restored.reward_moments.get_state() == trained.reward_moments.get_state()
        for name, value in weights(trained).items():
            np.testing.assert_array_equal(weights(restored)[name], value)
        for one, other in zip(trained._sample_sequences(), restored._sample_sequences(), strict=True):
            np.testing.assert_array_equal(one.get_observations(), other.get_observations())
        before = restored.env_runner.num_env_steps_sampled_lifetime
        assert before == trained.env_runner.num_env_steps_sampled_lifetime > 0
        optimizer = restored.learner_group._learner.get_optimizer(DEFAULT_MODULE_ID)
        assert {int(state["step"]) for state in optimizer.state.values()} == {4}
        result = restored.train()
        assert result["training_iteration"] == 3
        assert restored.env_runner.num_env_steps_sampled_lifetime > before
    finally:
        restored.stop()


def test_checkpoint_gives_a_policy_to_act_with(trained: AutoExplore, tmp_path: Path) -> None:
    trained.save_to_path(tmp_path)
    module = load_module(tmp_path, epsilon=0.25, temperature=0.5)
    assert module.settings.epsilon(0) == module.settings.epsilon(10**9) == 0.25
    assert module.settings.temperature == 0.5
    for name, value in module.get_state().items():
        np.testing.assert_array_equal(value, weights(trained)[name])


@pytest.mark.slow
def test_game_rewards_are_recorded_and_never_learned_from() -> None:
    results = {}
    for game_reward in (0.0, 5.0):
        algorithm = config(updates=3, game_reward=game_reward).build_algo()
        first = weights(algorithm)
        for _ in range(2):
            result = algorithm.train()
        results[game_reward] = weights(algorithm)
        assert any((first[name] != value).any() for name, value in results[game_reward].items())
        assert result["env_runners"]["episode_return_mean"] == 30 * game_reward
        assert not any(any(info) for episode in algorithm.replay.episodes for info in episode.get_infos())
        algorithm.stop()
    for name, value in results[0.0].items():
        np.testing.assert_array_equal(value, results[5.0][name])


class Fails:
    def result(self, timeout_s: float) -> list[np.ndarray]:
        raise RewardUnavailableError("the service restarts")


class Unreliable(ActionClient):
    """Fails at those requests, counted from 0."""

    def __init__(self, failing: set[int]) -> None:
        self.failing = failing
        self.requests = -1

    def submit(self, frames: list[np.ndarray], actions: list[np.ndarray]) -> Ready | Fails:
        self.requests += 1
        ready = super().submit(frames, actions)
        return Fails() if self.requests in self.failing else ready


@pytest.mark.parametrize(("failing", "dropped"), [({1, 3}, 0), ({1, 3, 4}, 1)])
def test_failed_requests_are_repeated_and_then_dropped(
    failing: set[int], dropped: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Request 1 is the second fragment's; it is repeated as requests 3 and 4, after the third fragment's request."""
    monkeypatch.setattr(env_runner, "RETRY_PAUSE_S", 0.0)
    algorithm_config = config(updates=1, client=lambda: Unreliable(failing), length=100)
    algorithm = algorithm_config.training(reward_attempts=3).build_algo()
    for _ in range(2):
        result = algorithm.train()
    assert result["env_runners"].get("fragments_dropped", 0) == dropped
    episodes = list(algorithm.replay.episodes)
    algorithm.stop()
    # All four episodes last through the four fragments; a hole splits them.
    assert len(episodes) == 4 * (1 + dropped)
    for episode in episodes:
        undefined = 3 if episode.t_started == 0 else 0
        np.testing.assert_array_equal(np.isnan(episode.get_rewards()), np.arange(len(episode)) < undefined)
        np.testing.assert_array_equal(episode.get_rewards()[undefined:], episode.get_actions()[undefined:] == 2)


def test_gives_up_when_no_fragment_gets_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_runner, "RETRY_PAUSE_S", 0.0)
    algorithm = config(client=lambda: Unreliable(set(range(1000)))).build_algo()
    algorithm.training_step()  # two fragments lost: the service may be restarting
    with pytest.raises(RewardUnavailableError, match="is the reward service running"):
        algorithm.training_step()
    algorithm.stop()


def test_needs_a_source_of_rewards() -> None:
    with pytest.raises(ValueError, match="reward_client_factory is missing"):
        AutoExploreConfig().validate()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0"),
        ({"fragment_length": 3}, "fragment_length is 3"),
        ({"steps_per_epoch": 30}, "multiples of fragment_length"),
        ({"burn_in": -1}, "burn_in is -1"),
        ({"gamma": 1.1}, "gamma is 1.1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"entropy_weight": -1.0}, "entropy_weight is -1.0"),
    ],
)
def test_config_is_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoExploreLearningConfig(**settings)
