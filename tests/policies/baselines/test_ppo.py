"""The PPO baseline: exact ε-mixture, scaled frames, and learning from the game's own reward."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.tune import register_env

from policies.baselines.config import PPOSettings
from policies.baselines.ppo import EpsilonPPOModule, ppo_config
from policies.exploration import load_module, mixture_log_probs
from tests.policies.toys import ShowsAction

SMALL = PPOSettings(
    num_envs=4,
    fragment_length=32,
    minibatch_size=64,
    epochs=4,
    learning_rate=3e-3,
    filters=((8, 4, 4), (8, 4, 4)),
    hidden=16,
    epsilon=0.1,
)


class Pays(ShowsAction):
    """Gives 100 points for action 2."""

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        frame, _, terminated, truncated, info = super().step(action)
        return frame, 100.0 * (action == 2), terminated, truncated, info


def module(epsilon: float) -> EpsilonPPOModule:
    spec = ppo_config("pays", {}, PPOSettings(filters=SMALL.filters, hidden=16, epsilon=epsilon)).rl_module_spec
    spec.observation_space = gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)
    spec.action_space = gym.spaces.Discrete(4)
    torch.manual_seed(0)
    return spec.build()


def test_acts_by_the_mixture_and_learns_the_policy_itself() -> None:
    acting = module(epsilon=0.3)
    batch = {Columns.OBS: torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8)}
    with torch.no_grad():
        logits = acting.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
        acted_by = acting.forward_exploration(batch)[Columns.ACTION_DIST_INPUTS]
    torch.testing.assert_close(acted_by, mixture_log_probs(logits, epsilon=0.3, temperature=1.0))
    torch.testing.assert_close(acting.forward_inference(batch)[Columns.ACTION_DIST_INPUTS], logits)
    assert batch[Columns.OBS].dtype == torch.uint8


def test_frames_reach_the_encoder_in_unit_range(monkeypatch: pytest.MonkeyPatch) -> None:
    acting = module(epsilon=0.0)
    seen = []
    acting.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][Columns.OBS]))
    white = {Columns.OBS: torch.full((1, 16, 16, 3), 255, dtype=torch.uint8)}
    with torch.no_grad():
        acting.forward_inference(white)
        acting.forward_exploration(white)
        acting.compute_values(white, acting.forward_train(white)[Columns.EMBEDDINGS])
        acting.compute_values(white)
    assert len(seen) == 4
    assert all((frames == 1).all() for frames in seen)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_learns_the_games_reward(tmp_path: Any) -> None:
    register_env("pays", Pays)
    algorithm = ppo_config("pays", {}, SMALL).debugging(seed=0).build_algo()
    returns = [algorithm.train()["env_runners"]["episode_return_mean"] for _ in range(8)]
    # Points as the game counts them; the learner saw their signs.
    assert 300 < returns[0] < 1200
    last = algorithm.train()["env_runners"]
    learned = algorithm.learner_group._learner
    batch = learned._learner_connector(
        rl_module=learned.module, batch={}, episodes=algorithm.env_runner.sample(num_timesteps=64), shared_data={}
    )["default_policy"]
    assert set(batch[Columns.REWARDS].tolist()) == {0, 1}
    algorithm.save_to_path(tmp_path)
    algorithm.stop()
    assert last["episode_return_mean"] > 1.5 * returns[0]
    sure = load_module(tmp_path, epsilon=0.0, temperature=1e-7)
    frames = {Columns.OBS: torch.from_numpy(np.stack([Pays({}).reset()[0]] * 8))}
    assert (sure.forward_exploration(frames)[Columns.ACTION_DIST_INPUTS].argmax(-1) == 2).all()


def test_settings_are_checked() -> None:
    for settings, message in (({"num_envs": 0}, "num_envs is 0"), ({"epsilon": 2.0}, "epsilon is 2.0")):
        with pytest.raises(ValueError, match=message):
            PPOSettings(**settings)
