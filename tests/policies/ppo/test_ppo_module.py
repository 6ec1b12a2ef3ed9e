"""The PPO network sees small sprites from its first update on, and acts by the exact ε-mixture."""

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

from policies.exploration import mixture_log_probs
from policies.ppo.config import ExplorerPPOSettings, PPOSettings
from policies.ppo.learner import JudgedAdvantages, discounted_steps_left, policy_figures
from policies.ppo.module import PPOModule
from policies.saved import load_policy, save_policy


def built(kind: type[PPOSettings] = PPOSettings, size: int = 64, **settings: Any) -> PPOModule:
    torch.manual_seed(0)
    return PPOModule(
        observation_space=gym.spaces.Box(0, 255, (size, size, 6), np.uint8),
        action_space=gym.spaces.Discrete(5),
        model_config={"settings": kind(**settings)},
    )


def sprites() -> torch.Tensor:
    """64 frames of a static picture in which an 8×8 sprite is elsewhere each time."""
    generator = torch.manual_seed(1)
    frames_BHWC = torch.randint(0, 256, (1, 64, 64, 6), dtype=torch.uint8, generator=generator).repeat(64, 1, 1, 1)
    for number, frame_HWC in enumerate(frames_BHWC):
        top, left = 8 * (number // 8), 8 * (number % 8)
        frame_HWC[top : top + 8, left : left + 8] = 255
    return frames_BHWC


def spread_over_mean(module: PPOModule) -> float:
    with torch.no_grad():
        features_BD = module.features({Columns.OBS: sprites()})
    return float(features_BD.std(0).mean() / features_BD.abs().mean())


def test_a_sprite_moves_the_features_once_the_frames_are_centred() -> None:
    module = built()
    blind = spread_over_mean(module)
    module.forward_train({Columns.OBS: sprites()})
    assert spread_over_mean(module) > 0.5 > 3 * blind


def test_the_first_batch_alone_fixes_the_mean_frame() -> None:
    module = built()
    first = sprites()
    module.forward_train({Columns.OBS: first})
    pixels = first.double().movedim(-1, 1) / 255
    np.testing.assert_allclose(module.mean_CHW, pixels.mean(0), atol=1e-6)
    assert module.spread.item() == pytest.approx((pixels - pixels.mean(0)).std().item(), rel=1e-5)
    module.forward_train({Columns.OBS: torch.zeros_like(first)})
    np.testing.assert_allclose(module.mean_CHW, pixels.mean(0), atol=1e-6)


def test_acts_by_the_mixture_and_learns_the_policy_itself() -> None:
    module = built(epsilon=0.3)
    batch = {Columns.OBS: sprites()}
    with torch.no_grad():
        logits = 100 * module.forward_train(batch)[Columns.ACTION_DIST_INPUTS]
        module.policy.weight.mul_(100)
        acted = module.forward_exploration(batch)
    expected = mixture_log_probs(logits, epsilon=0.3, temperature=1.0)
    torch.testing.assert_close(acted[Columns.ACTION_DIST_INPUTS], expected, atol=1e-4, rtol=1e-4)
    taken = expected.gather(-1, acted[Columns.ACTIONS].unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(acted[Columns.ACTION_LOGP], taken, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(module.forward_inference(batch)[Columns.ACTION_DIST_INPUTS], logits)


def test_an_explorers_epsilon_falls_unless_it_is_fixed() -> None:
    module = built(ExplorerPPOSettings, epsilon=0.0, epsilon_start=0.8, epsilon_steps=1000)
    with torch.no_grad():
        module.policy.bias[1] = 60.0  # it is sure of action 1

    def random_share(t: int) -> float:
        """ε by the likelihood of action 0, which only chance takes."""
        acted = module.forward_exploration({Columns.OBS: sprites()}, t=t)
        return float(acted[Columns.ACTION_DIST_INPUTS][0, 0].exp()) * module.action_space.n

    assert [random_share(t) for t in (0, 250, 1000, 9999)] == pytest.approx([0.8, 0.6, 0.0, 0.0], abs=1e-6)
    module.set_exploration(epsilon=0.3, temperature=1.0)
    assert random_share(0) == pytest.approx(0.3)


def test_a_checkpoint_keeps_what_it_has_seen(tmp_path: Any) -> None:
    module = built(hold=3)
    module.forward_train({Columns.OBS: sprites()})
    save_policy(module, tmp_path)
    loaded = load_policy(tmp_path, epsilon=0.2, temperature=2.0)
    assert (loaded.hold, loaded.shown_frames, loaded.epsilon, loaded.temperature) == (3, 2, 0.2, 2.0)
    batch = {Columns.OBS: sprites()}
    torch.testing.assert_close(loaded.features(batch), module.features(batch))


def test_how_much_a_policy_has_made_up_its_mind() -> None:
    """Four states of two kinds, each with its own sure action; then the same action in all."""
    sure = torch.tensor([[0.0, -60.0], [-60.0, 0.0]] * 2).log_softmax(-1)
    figures = policy_figures(sure)
    assert figures["uniform_kl"] == pytest.approx(math.log(2))
    assert figures["prior_kl"] == pytest.approx(0.0, abs=1e-6)
    assert figures["state_information"] == pytest.approx(math.log(2))
    figures = policy_figures(torch.tensor([[0.75, 0.25]] * 4).log())
    assert figures["uniform_kl"] == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert figures["state_information"] == pytest.approx(0.0, abs=1e-6)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"frames of shape \(16, 16, 6\) are too small"):
        built(size=16)
    for settings, message in (
        ({"num_envs": 0}, "num_envs is 0"),
        ({"epsilon": 2.0}, "epsilon is 2.0"),
        ({"epsilon": 0.2, "epsilon_steps": 9}, r"epsilon is 0.2; allowed: at most epsilon_start \(0.1\)"),
        ({"hold": 0}, "hold is 0"),
        ({"fragment_length": 3, "minibatch_size": 24}, "fragment_length is 3; allowed: 4 or more"),
        ({"minibatch_size": 513}, "minibatch_size is 513; allowed: at most num_envs × fragment_length = 512"),
        ({"keep": "best"}, "keep is 'best'; allowed: 'last' or 'return'"),
    ):
        with pytest.raises(ValueError, match=message):
            ExplorerPPOSettings(**settings)  # type: ignore[arg-type]


def test_steps_left_by_hand() -> None:
    mask_B = torch.tensor([True, True, True, False, True, False])
    torch.testing.assert_close(
        discounted_steps_left(mask_B, 0.5), torch.tensor([1.75, 1.5, 1.0, 0.0, 1.0, 0.0]), rtol=0, atol=0
    )


class Figures(dict[str, float]):
    """Takes what is logged."""

    def log_dict(self, figures: dict[str, float], **_: Any) -> None:
        self |= figures


@pytest.mark.parametrize("ending", [1.0, -1.0])
def test_advantages_are_standardised_over_real_steps_and_tell_whether_ending_paid(ending: float) -> None:
    """Two pieces of three and two decisions, each with the step that RLlib adds; the last decisions pay, or cost."""
    module, told = built(hold=3), Figures()
    columns = {
        Columns.OBS: sprites()[:7],
        Columns.LOSS_MASK: torch.tensor([True, True, True, False, True, True, False]),
        Postprocessing.ADVANTAGES: torch.tensor([-1.0, 0.0, 1.0, 1e6, 0.0, 1.0, -1e6]) * ending,
        Postprocessing.VALUE_TARGETS: torch.arange(7.0),
    }
    changed = JudgedAdvantages()(rl_module={"one": module}, batch={"one": columns}, metrics=told)["one"]
    real = changed[Postprocessing.ADVANTAGES][changed[Columns.LOSS_MASK]]
    assert float(real.mean()) == pytest.approx(0, abs=1e-6)
    assert float(real.std()) == pytest.approx(1)
    assert told["advantage_of_steps_left"] * ending < -0.9
