"""Learned curiosity: errors fall for what was seen and for nothing else; states are restored exactly."""

import copy
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from policies.baselines.config import CuriosityConfig
from policies.baselines.curiosity import FeatureCuriosity

SMALL = CuriosityConfig(features=32, hidden=32, residual_blocks=1, learning_rate=1e-3)
ACTIONS = 3


def transitions(seed: int, dark: bool) -> tuple[Tensor, Tensor]:
    """Noise in the dark or in the bright half of the range."""
    rng = np.random.default_rng(seed)
    frames_M2HWC = rng.integers(0, 128, (32, 2, 16, 16, 3)) + (0 if dark else 128)
    return torch.from_numpy(frames_M2HWC.astype(np.uint8)), torch.from_numpy(rng.integers(0, ACTIONS, 32))


def curiosity(kind: Literal["rf", "vae"]) -> FeatureCuriosity:
    return FeatureCuriosity(kind, SMALL, frame_size=16, num_actions=ACTIONS)


@pytest.mark.parametrize("kind", ["rf", "vae"])
def test_errors_fall_where_it_has_been(kind: Literal["rf", "vae"]) -> None:
    torch.manual_seed(0)
    learner = curiosity(kind)
    seen, unseen = transitions(0, dark=True), transitions(1, dark=False)
    before = learner.errors(*seen).mean()
    losses = [learner.learn(*seen) for _ in range(150)]
    after_seen, after_unseen = learner.errors(*seen).mean(), learner.errors(*unseen).mean()
    assert after_seen < before / 4
    assert after_unseen > 4 * after_seen
    if kind == "vae":
        assert losses[-1].reconstruction < losses[0].reconstruction / 2
    else:
        assert losses[-1].reconstruction is None


def test_errors_by_hand() -> None:
    """A predictor of zeros has the mean square of the features as its error."""
    learner = curiosity("rf")
    with torch.no_grad():
        learner.predictor.outward.weight.zero_()
    frames_M2HWC, actions_M = transitions(0, dark=True)
    features_MF = learner.encoder(frames_M2HWC[:, 1].movedim(-1, 1) / 255 - 0.5)
    torch.testing.assert_close(learner.errors(frames_M2HWC, actions_M), features_MF.square().mean(dim=1))


def test_random_features_stay_and_a_vaes_move() -> None:
    for kind, stays in (("rf", True), ("vae", False)):
        learner = curiosity(kind)
        before = learner.encoder.convolutions[0].weight.detach().clone()
        learner.learn(*transitions(0, dark=True))
        assert torch.equal(learner.encoder.convolutions[0].weight, before) == stays


def test_the_action_matters() -> None:
    learner = curiosity("rf")
    frames_M2HWC, actions_M = transitions(0, dark=True)
    assert not torch.allclose(
        learner.errors(frames_M2HWC, actions_M), learner.errors(frames_M2HWC, (actions_M + 1) % ACTIONS)
    )


@pytest.mark.parametrize("kind", ["rf", "vae"])
def test_a_restored_state_continues_exactly(kind: Literal["rf", "vae"]) -> None:
    first, batch = curiosity(kind), transitions(0, dark=True)
    first.learn(*batch)
    second = FeatureCuriosity(kind, CuriosityConfig(**{**vars(SMALL), "seed": 7}), frame_size=16, num_actions=ACTIONS)
    assert not torch.allclose(first.errors(*batch), second.errors(*batch))
    second.set_state(copy.deepcopy(first.get_state()))
    for learner in (first, second):
        torch.manual_seed(1)
        learner.learn(*batch)
    torch.testing.assert_close(first.errors(*batch), second.errors(*batch), rtol=0, atol=0)
    assert first.updates == second.updates == 2


def test_one_strange_frame_does_not_ruin_a_vae() -> None:
    learner, (frames_M2HWC, actions_M) = curiosity("vae"), transitions(0, dark=True)
    with torch.no_grad():
        learner.encoder.convolutions[-1].bias[SMALL.features :] = 500.0  # log variances whose exp is infinite
    losses = learner.learn(frames_M2HWC, actions_M)
    assert losses.reconstruction is not None
    assert np.isfinite(losses.reconstruction)
    before = {name: weights.clone() for name, weights in learner.state_dict().items()}
    with torch.no_grad():
        learner.predictor.outward.bias[0] = before["predictor.outward.bias"][0] = torch.inf
    with pytest.raises(RuntimeError, match="non-finite"):
        learner.learn(frames_M2HWC, actions_M)
    assert all(torch.equal(weights, before[name]) for name, weights in learner.state_dict().items())


def test_frame_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="frame_size is 20; allowed: multiples of 8"):
        FeatureCuriosity("rf", SMALL, frame_size=20, num_actions=ACTIONS)
