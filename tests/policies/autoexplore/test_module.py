"""AutoExplore's network: acting with the ε-mixture, and learning on the same frames that it acted on."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns

from policies.autoexplore.config import AutoExploreModuleConfig
from policies.autoexplore.module import AutoExploreModule
from policies.saved import load_policy, save_policy

SPACES: dict[str, Any] = {
    "observation_space": gym.spaces.Box(0, 255, (16, 16, 3), np.uint8),
    "action_space": gym.spaces.Discrete(4),
}


def autoexplore(**settings: Any) -> AutoExploreModule:
    torch.manual_seed(0)
    network = AutoExploreModuleConfig(channels=(4, 4), lstm_size=8, **settings)
    return AutoExploreModule(**SPACES, model_config={"network": network, "max_seq_len": 3})


def frames(batch: int, steps: int) -> torch.Tensor:
    return torch.randint(0, 256, (batch, steps, 16, 16, 3), dtype=torch.uint8, generator=torch.manual_seed(1))


def inputs(batch: int, steps: int) -> dict[str, Any]:
    state = {"h": torch.zeros(batch, 8), "c": torch.zeros(batch, 8)}
    return {Columns.OBS: frames(batch, steps), Columns.STATE_IN: state}


def test_epsilon_is_drawn_per_environment_and_step() -> None:
    """If the policy is certain of one action, half of the *environments* deviate at each step, not all or none."""
    module = autoexplore(epsilon_start=0.5, epsilon_end=0.5)
    with torch.no_grad():
        module.policy.bias.copy_(torch.tensor([100.0, 0, 0, 0]))
    for _ in range(5):
        out = module.forward_exploration(inputs(batch=400, steps=1), t=0)
        deviating = (out[Columns.ACTIONS] != 0).float().mean().item()
        assert deviating == pytest.approx(0.5 * 3 / 4, abs=0.1)
        expected = torch.where(out[Columns.ACTIONS] == 0, math.log(0.5 + 0.5 / 4), math.log(0.5 / 4))
        torch.testing.assert_close(out[Columns.ACTION_LOGP], expected)


def test_epsilon_schedule() -> None:
    config = AutoExploreModuleConfig()
    assert config.epsilon(0) == pytest.approx(0.1)
    assert config.epsilon(120_000) == pytest.approx(0.055)
    assert config.epsilon(10**7) == pytest.approx(0.01)


def test_acting_step_by_step_is_learning_on_the_sequence() -> None:
    """The same frames give the same logits, one at a time with carried states or as one sequence."""
    module = autoexplore()
    batch = inputs(batch=2, steps=3)
    with torch.no_grad():
        whole = module.forward_train(dict(batch))[Columns.ACTION_DIST_INPUTS]
    state = batch[Columns.STATE_IN]
    for t in range(3):
        step = {Columns.OBS: batch[Columns.OBS][:, t : t + 1], Columns.STATE_IN: state}
        out = module.forward_inference(step)
        torch.testing.assert_close(out[Columns.ACTION_DIST_INPUTS][:, 0], whole[:, t])
        state = out[Columns.STATE_OUT]


def test_module_refuses_frames_that_vanish() -> None:
    with pytest.raises(ValueError, match="too small for 5 convolutions"):
        AutoExploreModule(
            **SPACES, model_config={"network": AutoExploreModuleConfig(channels=(4,) * 5), "max_seq_len": 3}
        )


def test_papers_sizes() -> None:
    spaces = SPACES | {"observation_space": gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)}
    module = AutoExploreModule(**spaces, model_config={"network": AutoExploreModuleConfig(), "max_seq_len": 21})
    # 3×3 convolutions 3→32→32→64→64; LSTM from 4·4·64 to 512 (four gates, two biases); two heads.
    convolutions = 9 * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 32 + 32 + 64 + 64
    lstm = 4 * 512 * (4 * 4 * 64 + 512 + 2)
    assert sum(p.numel() for p in module.parameters()) == convolutions + lstm + 513 * 4 + 513


def test_trained_module_acts_at_any_temperature_and_epsilon(tmp_path: Any) -> None:
    module = autoexplore()
    save_policy(module, tmp_path / "module")
    loaded = load_policy(tmp_path / "module", epsilon=0.0, temperature=1e-7)
    batch = inputs(batch=50, steps=1)
    best = module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS].argmax(-1)
    torch.testing.assert_close(loaded.forward_exploration(batch)[Columns.ACTIONS], best)
    same = load_policy(tmp_path / "module")
    assert same.settings == module.settings
    with pytest.raises(ValueError, match="no policy in"):
        load_policy(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": ()}, "channels are"),
        ({"lstm_size": 0}, "lstm_size is 0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"epsilon_start": 1.5}, "epsilon_start is 1.5"),
        ({"epsilon_steps": 0}, "epsilon_steps is 0"),
        ({"epsilon_start": 0.1, "epsilon_end": 0.2}, "epsilon_end is 0.2; allowed: at most epsilon_start"),
    ],
)
def test_config_is_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoExploreModuleConfig(**settings)
