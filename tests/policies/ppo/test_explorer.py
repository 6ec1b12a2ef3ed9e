"""The PPO explorer end to end through RLlib: what is judged, recorded and learned."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO
from ray.tune import register_env

from policies.ppo.algorithm import ExplorerPPO, ExplorerPPOConfig
from policies.ppo.config import ExplorerPPOSettings
from policies.ppo.env_runner import HeldEnvRunner
from policies.ppo.module import PPOModule
from policies.ray_internals import end_remote_runner
from tests.policies.toys import NUM_ACTIONS, OneWindow, Outage, Ready, held

pytestmark = pytest.mark.usefixtures("ray_session")
SETTINGS = ExplorerPPOSettings(
    num_envs=4,
    hold=3,
    fragment_length=10,
    minibatch_size=40,
    filters=((8, 4, 4), (8, 4, 4)),
    hidden=16,
    evaluation_every=2,
    evaluation_steps=6,
)


def config(client: Any = OneWindow, settings: ExplorerPPOSettings = SETTINGS, **env: Any) -> ExplorerPPOConfig:
    register_env("held", held)
    return (
        ExplorerPPOConfig()
        .environment("held", env_config=env | {"hold": settings.hold})
        .training(settings=settings, reward_client_factory=client)
        .debugging(seed=0)
    )


@pytest.fixture(scope="module")
def trained() -> Any:
    """Two epochs of play; episodes of 31 steps end in the middle of a decision."""
    algorithm = config(length=31, terminates=True, game_reward=1.0).build_algo()
    recorded = []
    for _ in range(2):
        result = algorithm.train()
        recorded += [play for fragment in algorithm.arrived for play in fragment.recorded]
    yield algorithm, recorded, result
    algorithm.stop()


def test_every_step_is_recorded_once_with_its_actions_and_the_games_rewards(trained: Any) -> None:
    _, recorded, result = trained
    assert sum(map(len, recorded)) == result["exploration"]["env_steps"]
    ends: dict[str, int] = {}
    for play in recorded:
        assert play.first == ends.get(play.episode, 0)
        ends[play.episode] = play.first + len(play)
        np.testing.assert_array_equal(play.frames[1:, 0, 0, 0], 50 * (play.actions.astype(int) + 1))
        np.testing.assert_array_equal(play.frames[:, 0, 0, 1], play.first + np.arange(len(play) + 1))
        assert play.frames.shape[-1] == 3
        assert (play.game_rewards == 1.0).all()
        assert [info["score"] for info in play.infos] == list(range(play.first, play.first + len(play) + 1))
        assert play.terminated == (ends[play.episode] == 31)
    assert 31 in ends.values()


def test_a_decision_is_judged_at_its_last_step_and_drawn_at_its_first(trained: Any) -> None:
    _, recorded, _ = trained
    for play in recorded:
        steps = play.first + np.arange(len(play))
        last = (steps % 3 == 2) | (steps == 30)
        judged = last & (steps >= 3)  # the first decision has only three steps
        np.testing.assert_array_equal(~np.isnan(play.rewards), judged)
        np.testing.assert_array_equal(play.rewards[judged], play.actions[judged])
        np.testing.assert_array_equal(play.log_probs < 0, steps % 3 == 0)


def test_an_evaluation_is_not_remembered_and_a_checkpoint_restores_weights_and_scale(
    trained: Any, tmp_path: Path
) -> None:
    algorithm: ExplorerPPO = trained[0]
    assert algorithm.evaluated is not None
    assert algorithm.evaluated.version == "first, not to remember"
    assert algorithm.evaluated.steps >= 4 * 6 * 3 - 4 * 2
    algorithm.save_to_path(tmp_path)
    again = config().build_algo()
    again.restore_from_path(tmp_path)
    assert (again.iteration, again.env_steps, again.updates) == (2, algorithm.env_steps, 2)
    assert again.scale.get_state() == algorithm.scale.get_state()
    for name, value in algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID].items():
        np.testing.assert_array_equal(value, again.learner_group.get_weights()[DEFAULT_MODULE_ID][name])
    again.stop()


@pytest.mark.parametrize("episodic", [False, True])
def test_death_ends_returns_only_if_they_are_episodic(episodic: bool) -> None:
    settings = dataclasses.replace(SETTINGS, episodic=episodic)
    runner = HeldEnvRunner(config=config(settings=settings, length=12, terminates=True), worker_index=0)
    episodes = runner.hand_on(runner.sample()).episodes
    runner.stop()
    dead = [episode for episode in episodes if episode.is_done]
    assert [bool(episode.is_terminated) for episode in dead] == [episodic] * 8
    # The second channel shows the step. Death leads to the start of an episode, or nowhere.
    assert {int(episode.get_observations(-1)[0, 0, -2]) for episode in dead} == {12 if episodic else 0}
    for episode in dead:
        assert [int(shown[0, 0, -2]) for shown in episode.get_observations()[:-1]] == [0, 3, 6, 9][-len(episode) :]


class Signal(gym.Env[np.ndarray, np.int64]):
    """A small sprite shows which action is right, unless `hides`; being right is paid three decisions later.

    The rest of the frame is noise that never changes. Steps are decisions.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        self.observation_space = gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(NUM_ACTIONS)
        self.hides = given["hides"]
        self.picture = np.random.default_rng(0).integers(0, 200, (16, 16, 3), dtype=np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps, self.right = 0, [False] * 3
        return self._frame(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.right.append(bool(action == self.asked))
        self.steps += 1
        return self._frame(), 0.0, False, self.steps == 40, {}

    def _frame(self) -> np.ndarray:
        self.asked = int(self.np_random.integers(NUM_ACTIONS))
        frame = self.picture.copy()
        if not self.hides:
            frame[:4, 4 * self.asked : 4 * self.asked + 4] = 255
        frame[-1, -1] = 200 * self.right[-3]  # what the judge reads
        return frame


class ReadsCorner(OneWindow):
    """Pays what the corner of the last frame shows."""

    def submit(self, frames: list[np.ndarray], actions: list[np.ndarray], **kwargs: Any) -> Ready:
        return Ready([np.array([np.nan] * 3 + [frames_of[-1, -1, -1, 0] / 200], np.float32) for frames_of in frames])


@pytest.mark.slow
@pytest.mark.parametrize("hides", [False, True])
def test_learns_what_the_frame_tells_and_pays_later(hides: bool) -> None:
    """A policy that cannot see which action is right is so in one of four cases, whatever it learns."""
    settings = dataclasses.replace(SETTINGS, hold=1, fragment_length=64, minibatch_size=64, learning_rate=3e-3)
    algorithm = config(ReadsCorner, settings, make=Signal, hides=hides).build_algo()
    for _ in range(25):
        result = algorithm.train()
    algorithm.stop()
    right, learner = result["exploration"]["reward_mean"], result["learners"][DEFAULT_MODULE_ID]
    assert right < 0.4 if hides else right > 0.6
    assert (learner["state_information"] > 0.2) is not hides


def test_a_killed_runners_turn_is_played_by_the_other_and_it_comes_back() -> None:
    algorithm = config().env_runners(num_env_runners=2).build_algo()
    algorithm.train()
    assert len(algorithm.arrived) == 2
    runners = algorithm.env_runner_group
    end_remote_runner(runners, 1)
    steps, there = algorithm.env_steps, set()
    end = time.monotonic() + 120
    while not there or runners.num_remote_worker_restarts() == 0 or runners.num_healthy_remote_env_runners() < 2:
        algorithm.train()
        assert len(algorithm.arrived) == 2  # an epoch is as large as ever
        there.add(runners.num_healthy_remote_env_runners())
        steps += sum(fragment.steps for fragment in algorithm.arrived)
        assert time.monotonic() < end
    assert 1 in there
    assert algorithm.env_steps == steps
    assert runners.num_remote_worker_restarts() == 1
    # All play of an epoch is by the weights that the update before it left.
    episodes = [episode for fragment in algorithm.arrived for episode in fragment.episodes]
    assert len(np.unique(np.concatenate([e.get_extra_model_outputs(WEIGHTS_SEQ_NO) for e in episodes]))) == 1
    algorithm.stop()


def test_lost_rewards_are_named() -> None:
    outage = config(Outage).training(reward_timeout_s=0.1).build_algo()
    with pytest.raises(ConnectionError, match="is the reward service running"):
        outage.training_step()
    outage.stop()


def test_needs_a_source_of_rewards() -> None:
    with pytest.raises(ValueError, match="reward_client_factory is missing"):
        ExplorerPPOConfig().validate()


def test_frames_are_those_of_the_policy_that_acted(trained: Any) -> None:
    """What the learner gets: two frames, the exact log-probability of the action drawn."""
    algorithm: ExplorerPPO = trained[0]
    for fragment in algorithm.arrived:
        for episode in fragment.episodes:
            assert episode.get_observations().shape[-1] == 6
            inputs = episode.get_extra_model_outputs(Columns.ACTION_DIST_INPUTS)
            taken = np.take_along_axis(inputs, episode.get_actions()[:, None], 1)[:, 0]
            np.testing.assert_allclose(episode.get_extra_model_outputs(Columns.ACTION_LOGP), taken, rtol=1e-6)
            assert torch.isfinite(torch.as_tensor(inputs)).all()


def test_an_explorer_that_is_killed_again_and_again_goes_on_with_its_epsilon_scale_and_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    acted_after: list[int] = []  # steps that the schedule of ε goes by
    act = PPOModule._forward_exploration

    def watched(self: PPOModule, batch: dict[str, Any], t: int = 0, **more: Any) -> dict[str, Any]:
        acted_after.append(int(t))
        return act(self, batch, t=t, **more)

    monkeypatch.setattr(PPOModule, "_forward_exploration", watched)
    settings = dataclasses.replace(SETTINGS, evaluation_every=100, epsilon_start=0.9, epsilon_steps=600)
    first_of_life: list[int] = []
    states: list[dict[str, Any]] = []
    weights: dict[str, Any] = {}
    for life in range(5):
        algorithm = config(settings=settings, length=31).build_algo()
        if life:
            algorithm.restore_from_path(tmp_path / str(life - 1))
            assert algorithm.get_state()["scale"] == states[-1]["scale"]
            assert (algorithm.env_steps, algorithm.updates) == (states[-1]["env_steps"], life)
            for name, weight in algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID].items():
                np.testing.assert_array_equal(weight, weights[name], err_msg=name)
        acted_after.clear()
        algorithm.train()
        first_of_life.append(acted_after[0])
        weights = algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID]
        states.append({key: algorithm.get_state()[key] for key in ("env_steps", "scale")})
        algorithm.save_to_path(tmp_path / str(life))
        algorithm.stop()
    assert first_of_life == [0, *(state["env_steps"] for state in states[:-1])]
    epsilons = [settings.epsilon_after(steps) for steps in first_of_life]
    assert epsilons == sorted(epsilons, reverse=True)
    assert epsilons[0] == 0.9 > epsilons[-1]
    counts = [state["scale"]["returns"]["count"] for state in states]
    assert counts == sorted(set(counts))  # what was learned of the returns before is still counted
