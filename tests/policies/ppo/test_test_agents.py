"""PPO test agents learn from the game's own reward."""

from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.tune import register_env

from policies.play.held import HeldEnv
from policies.ppo.config import PPOSettings
from policies.ppo.test_agents import ppo_config
from policies.saved import load_policy, save_policy
from tests.policies.toys import ShowsAction

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session")]
SMALL = PPOSettings(
    num_envs=4,
    hold=1,
    fragment_length=32,
    minibatch_size=64,
    passes=4,
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


def test_learns_the_games_reward(tmp_path: Any) -> None:
    register_env("pays", lambda given: HeldEnv(Pays(given), SMALL.hold))
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
    save_policy(learned.module["default_policy"].unwrapped(), tmp_path)
    algorithm.stop()
    assert last["episode_return_mean"] > 1.5 * returns[0]
    sure = load_policy(tmp_path, epsilon=0.0, temperature=1e-7)
    frames = {Columns.OBS: torch.from_numpy(np.concatenate([np.stack([Pays({}).reset()[0]] * 8)] * 2, axis=-1))}
    assert (sure.forward_exploration(frames)[Columns.ACTION_DIST_INPUTS].argmax(-1) == 2).all()
