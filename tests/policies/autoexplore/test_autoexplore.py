"""AutoExplore end to end through RLlib, on an environment whose frames show which action led to them."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.autoexplore.algorithm import AutoExplore, AutoExploreConfig
from policies.autoexplore.config import AutoExploreLearningConfig
from policies.judged.env_runner import CuriosityEnvRunner, JudgedFragment
from policies.rewards import RewardAnswer, RewardUnavailableError
from policies.saved import load_policy, save_policy
from tests.policies.autoexplore.small_run import LEARNING, Fails, config, weights
from tests.policies.toys import NUM_ACTIONS, ActionClient

pytestmark = pytest.mark.usefixtures("ray_session")


def share_of_best_action(algorithm: AutoExplore) -> float:
    """The mean reward after a short training: how often the policy takes the rewarded action."""
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
    """Replaces the actions that earned the rewards by newly drawn ones, so that nothing can be learned."""

    rng = np.random.default_rng(0)

    def _judged(self, *args: Any, **kwargs: Any) -> JudgedFragment:
        fragment = super()._judged(*args, **kwargs)
        for episode in fragment.episodes:
            episode.actions.data = self.rng.integers(NUM_ACTIONS, size=len(episode.actions.data))
        return fragment


@pytest.mark.slow
def test_finds_nothing_if_the_actions_are_not_those_taken() -> None:
    assert share_of_best_action(config().env_runners(env_runner_cls=ForgetsActions).build_algo()) < 0.55


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


def test_evaluation_plays_by_the_evaluations_temperature(trained: AutoExplore) -> None:
    played = trained.evaluated
    assert played is not None
    assert played.steps >= 4 * LEARNING.evaluation_steps
    assert played.version == "first, not to remember"
    rewards = np.concatenate([episode.get_rewards() for episode in played.episodes])
    assert trained.metrics.peek(("evaluation", "env_runners", "reward_mean")) == pytest.approx(np.nanmean(rewards))
    settings = trained.eval_env_runner.module.settings
    assert (settings.temperature, settings.epsilon(0), settings.epsilon(10**9)) == (0.5, 0.0, 0.0)
    assert trained.env_runner.module.settings.temperature == 1.0


def test_checkpoint_gives_a_policy_to_act_with(trained: AutoExplore, tmp_path: Path) -> None:
    save_policy(trained.learner_group._learner.module["default_policy"].unwrapped(), tmp_path)
    module = load_policy(tmp_path, epsilon=0.25, temperature=0.5)
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


class Unreliable(ActionClient):
    """Fails on the given requests, counted from 0."""

    def __init__(self, failing: set[int]) -> None:
        self.failing = failing
        self.requests = -1

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        self.requests += 1
        ready = super().submit(*args, **kwargs)
        return Fails() if self.requests in self.failing else ready


def test_a_fragment_without_rewards_is_dropped_whole_and_made_up_for() -> None:
    algorithm = config(updates=1, client=lambda: Unreliable({1}), length=200).build_algo()
    result = algorithm.train()
    algorithm.stop()
    assert result["env_runners"]["fragments_dropped"] == 1
    assert result["exploration"]["env_steps"] == 2 * 80
    # All four episodes span all fragments played; the gap splits them.
    lengths = [(episode.t_started, len(episode)) for episode in algorithm.replay.episodes]
    assert lengths == 4 * [(0, 20)] + 4 * [(40, 20)]
    for episode in algorithm.replay.episodes:
        undefined = 3 if episode.t_started == 0 else 0
        np.testing.assert_array_equal(np.isnan(episode.get_rewards()), np.arange(20) < undefined)
        np.testing.assert_array_equal(episode.get_rewards()[undefined:], episode.get_actions()[undefined:] == 2)


def test_gives_up_when_no_fragment_gets_rewards() -> None:
    algorithm = config(client=lambda: Unreliable(set(range(1000)))).build_algo()
    with pytest.raises(RewardUnavailableError, match="is the reward service running"):
        algorithm.training_step()
    algorithm.stop()


class Wrong:
    def answer(self, timeout_s: float) -> RewardAnswer:
        raise ValueError("fragment 0:\nactions range from 0 to 3")


class Refuses(ActionClient):
    def submit(self, *args: Any, **kwargs: Any) -> Any:
        return Wrong()


def test_what_asking_again_cannot_mend_ends_the_training_with_its_cause() -> None:
    algorithm = config(client=Refuses).build_algo()
    with pytest.raises(ValueError, match=r"^no rewards: ValueError: actions range from 0 to 3$"):
        algorithm.training_step()
    algorithm.stop()


def test_a_game_that_does_not_start_is_named() -> None:
    algorithm = config(game="Kangaroo", damaged=True).build_algo()
    with pytest.raises(ValueError, match=r"^Kangaroo does not start: RuntimeError: the start state is damaged$"):
        algorithm.training_step()
    algorithm.stop()


def test_an_epoch_takes_play_in_even_if_its_steps_have_arrived(trained: AutoExplore) -> None:
    steps = trained.env_steps
    trained.env_steps += 2 * trained.config.epoch_steps
    trained.updates = trained.env_steps * 2 // trained.config.epoch_steps
    try:
        explored = trained.train()["exploration"]
        assert explored["env_steps"] == steps + 2 * trained.config.epoch_steps + sum(f.steps for f in trained.arrived)
        assert len(trained.arrived) == 1
    finally:
        trained.env_steps -= 2 * trained.config.epoch_steps
        trained.updates -= 2 * 2


def test_a_runner_that_starts_again_draws_other_actions(trained: AutoExplore) -> None:
    def actions(env_steps: int) -> np.ndarray:
        runner = CuriosityEnvRunner(config=trained.config, worker_index=1)
        weights = trained._source._newest_weights()
        for _ in range(2):
            fragment = runner.play_fragment(weights=weights, env_steps=env_steps)
        runner.stop()
        return np.concatenate([episode.get_actions() for episode in fragment.episodes])

    first = actions(env_steps=0)
    np.testing.assert_array_equal(actions(env_steps=0), first)
    assert (actions(env_steps=80) != first).any()


def test_an_environment_that_dies_in_the_middle_of_a_step_is_replaced() -> None:
    """The last environment dies: the others have answered by then and would never answer again."""
    algorithm = config(updates=1, sleep_s=0.05).build_algo()
    processes = algorithm.env_runner.env.unwrapped.processes
    threading.Timer(1.0, processes[-1].kill).start()
    playing = threading.Thread(target=algorithm.train, daemon=True)
    playing.start()
    playing.join(60)
    assert not playing.is_alive()
    assert not any(process.is_alive() for process in processes)
    assert algorithm.env_steps == 160
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
        ({"max_weights_age": 74}, "max_weights_age is 74; allowed: 75 or more"),
        ({"evaluation_every": 0}, "evaluation_every is 0"),
        ({"old_rewards": "keep"}, "old_rewards is 'keep'"),
    ],
)
def test_config_is_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoExploreLearningConfig(**settings)
