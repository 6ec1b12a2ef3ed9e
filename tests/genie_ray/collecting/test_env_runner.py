"""The collecting environment runner plays what RLlib's own would play, and reports the same log-probabilities."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from genie_ray.collecting.env_runner import CollectionEnvRunner
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.game import register_rllib_env
from genie_ray.envs.retro import RetroEnv
from policies.autoexplore.config import AutoExploreModuleConfig
from policies.autoexplore.module import AutoExploreModule
from policies.play.held import STEPS, HeldEnv
from policies.ppo.config import PPOSettings
from policies.ppo.module import PPOModule
from policies.saved import load_policy, save_policy

GAME = "Kangaroo-Atari2600-v0"
ENV = EnvConfig(max_episode_steps=40)
ACTING = {"epsilon": 0.2, "temperature": 0.5}
RECURRENT = (AutoExploreModule, {"network": AutoExploreModuleConfig(channels=(8, 8), lstm_size=16)})
pytestmark = pytest.mark.usefixtures("roms", "ray_session")


def collected(checkpoint: Path | None, max_steps: int | None = None) -> SingleAgentEpisode:
    runner = CollectionEnvRunner(GAME, ENV, checkpoint=checkpoint, exploration=ACTING, native_frame_every=0)
    (episode,) = runner.sample(seed=3, max_steps=max_steps)
    runner.stop()
    return episode


@pytest.mark.parametrize("hold", [1, 3])
def test_agents_act_as_in_rllibs_own_runner(hold: int, tmp_path: Path) -> None:
    """An agent with a memory decides at each step, one that holds its actions at every third."""
    game = RetroEnv(GAME, ENV)
    env, held = (game, {}) if hold == 1 else (HeldEnv(game, hold), {"hold": hold, "record": True})
    module_class, model_config = (
        RECURRENT if hold == 1 else (PPOModule, {"settings": PPOSettings(hold=hold, hidden=16)})
    )
    spec = RLModuleSpec(
        module_class=module_class,
        observation_space=env.observation_space,
        action_space=env.action_space,
        model_config=model_config,
    )
    torch.manual_seed(0)
    save_policy(spec.build(), tmp_path)
    config = PPOConfig().environment(register_rllib_env(), env_config={"game": GAME, "env": ENV, **held})
    runner = SingleAgentEnvRunner(config=config.env_runners(num_env_runners=0).rl_module(rl_module_spec=spec))
    runner.module = load_policy(tmp_path, **ACTING)
    torch.manual_seed(3)
    (theirs,) = runner.sample(num_episodes=1, explore=True)
    runner.stop()
    ours = collected(tmp_path)
    assert len(ours) == 40
    assert np.array_equal(ours.get_actions(), np.repeat(theirs.get_actions(), hold)[:40])
    frames = (
        theirs.get_observations() if hold == 1 else np.concatenate([info[STEPS].frames for info in theirs.get_infos()])
    )
    assert np.array_equal(ours.get_observations(), frames)
    assert ours.get_rewards().sum() == theirs.get_rewards().sum()
    log_probs, expected = (
        episode.get_extra_model_outputs(Columns.ACTION_LOGP).astype(np.float64) for episode in (ours, theirs)
    )
    assert np.allclose(log_probs[::hold], expected, atol=1e-6)
    assert not np.delete(log_probs, np.arange(0, 40, hold)).any()  # a held action is certain
    assert (ours.is_terminated, ours.is_truncated) == (theirs.is_terminated, theirs.is_truncated)


def test_a_limit_of_steps_cuts_the_same_episode_short() -> None:
    whole, cut = collected(None), collected(None, max_steps=15)
    assert len(cut) == 15
    assert not cut.is_done
    assert np.array_equal(cut.get_actions(), whole.get_actions(slice(0, 15)))
    assert np.array_equal(cut.get_observations(), whole.get_observations(slice(0, 16)))
