"""The parts combined: rollouts, the frozen tokenizer, uncertainty, rejected inputs."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_models import (
    ACTIONS,
    GRID,
    SIZE,
    dynamics_config,
    guided_model,
    moving_square,
    random_clip,
    tokenizer_config,
    train,
    unguided_config,
)
from torch import Tensor

from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieRedux, GenieReduxConfig, GenieReduxG, GenieReduxGConfig
from world_model.maskgit import DecodingConfig

ALIGNMENTS = ["shifted", "aligned"]
AUTOREGRESSIVE = DecodingConfig(steps=2, temperature=0.0, mode="autoregressive", frames_per_step=1)


def test_importing_the_world_model_imports_no_ray() -> None:
    code = "import sys, world_model.genie, world_model.checkpoint; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
@pytest.mark.parametrize("decoding", [DecodingConfig(steps=3), AUTOREGRESSIVE])
def test_rollouts_have_the_predicted_frames_and_follow_the_generator(alignment: str, decoding: DecodingConfig) -> None:
    model = guided_model(alignment=alignment)
    frames_BTHWC, actions_BT = random_clip()

    def rollout(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return model.rollout(frames_BTHWC[:, :2], actions_BT, decoding=decoding, generator=generator)

    assert rollout(0).shape == (2, 4, SIZE, SIZE, 3)
    assert rollout(0).dtype == torch.uint8
    assert torch.equal(rollout(0), rollout(0))
    if decoding.temperature:
        assert not torch.equal(rollout(0), rollout(1))


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_rollouts_show_an_action_from_the_next_frame_on(alignment: str) -> None:
    model = guided_model(alignment=alignment)
    torch.nn.init.normal_(model.dynamics.to_logits.weight, std=3)  # so that a changed action changes tokens
    frames_BTHWC, actions_BT = random_clip(batch=8)
    changed_BT = actions_BT.clone()
    changed_BT[:, 3] = (changed_BT[:, 3] + 1) % ACTIONS  # leads to frame 4, the third predicted one
    predicted, changed = (
        model.rollout(frames_BTHWC[:, :2], actions, decoding=AUTOREGRESSIVE) for actions in (actions_BT, changed_BT)
    )
    assert torch.equal(predicted[:, :2], changed[:, :2])
    assert not torch.equal(predicted[:, 2], changed[:, 2])


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_a_model_that_knows_the_game_predicts_it(alignment: str) -> None:
    """Tokenizer and dynamics learn a moving square; rollouts then follow the given actions."""
    frames_BTHWC, actions_BT = moving_square(batch=8)
    model = GenieReduxG(
        GenieReduxGConfig(
            tokenizer=tokenizer_config("fsq", blocks=1, mean_frame=True),
            dynamics=dynamics_config(blocks=1, alignment=alignment, token_input_scale=1.0),
        )
    )
    model.tokenizer.requires_grad_(True).initialize_mean_frame(frames_BTHWC)
    train(model.tokenizer, lambda: model.tokenizer(frames_BTHWC).loss, steps=60)
    train(model.dynamics, lambda: model(frames_BTHWC, actions_BT).loss, steps=200)
    model.eval()

    def error(predicted_BTHWC: Tensor) -> Tensor:
        return (predicted_BTHWC.float() - frames_BTHWC[:, 2:].float()).square().mean()

    still = error(frames_BTHWC[:, 1:2].expand(-1, 4, -1, -1, -1))
    assert error(model.rollout(frames_BTHWC[:, :2], actions_BT, decoding=AUTOREGRESSIVE)) < 0.25 * still
    assert error(model.rollout(frames_BTHWC[:, :2], 1 - actions_BT, decoding=AUTOREGRESSIVE)) > 0.5 * still


def test_the_tokenizer_stays_frozen() -> None:
    model = guided_model("ema").train()
    assert model.dynamics.training
    assert not model.tokenizer.training
    before = {name: value.clone() for name, value in model.tokenizer.state_dict().items()}
    model(*random_clip()).loss.backward()
    assert all(parameter.grad is None for parameter in model.tokenizer.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.tokenizer.state_dict().items())
    assert any(parameter.grad is not None for parameter in model.dynamics.parameters())


def test_uncertainty_judges_the_frame_after_the_fourth_action() -> None:
    model = guided_model(alignment="shifted")
    frames_BTHWC, actions_BT = random_clip(frames=5)
    uncertainty_BN = model.uncertainty(frames_BTHWC[:, :2], actions_BT)
    assert uncertainty_BN.shape == (2, GRID[0] * GRID[1])
    assert (uncertainty_BN >= 0).all()
    assert (uncertainty_BN <= 1).all()
    last_action_BT = actions_BT.clone()
    last_action_BT[:, 3] = (last_action_BT[:, 3] + 1) % ACTIONS
    assert not torch.equal(model.uncertainty(frames_BTHWC[:, :2], last_action_BT), uncertainty_BN)
    one_by_one = [model.uncertainty(frames_BTHWC[i : i + 1, :2], actions_BT[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(torch.cat(one_by_one), uncertainty_BN)


def test_latent_actions_condition_and_learn() -> None:
    model = GenieRedux(unguided_config())
    frames_BTHWC, _ = random_clip()
    model(frames_BTHWC).loss.backward()
    assert all(parameter.grad is not None for parameter in model.latent_actions.parameters())
    codes_BT = model.eval().latent_actions.encode(frames_BTHWC)
    assert codes_BT.shape == (2, 5)
    changed_BTHWC = frames_BTHWC.clone()
    changed_BTHWC[:, -1] = 255 - changed_BTHWC[:, -1]
    assert torch.equal(model.latent_actions.encode(changed_BTHWC)[:, :-1], codes_BT[:, :-1])
    predicted = model.rollout(frames_BTHWC[:, :2], codes_BT, decoding=AUTOREGRESSIVE)
    assert predicted.shape == (2, 4, SIZE, SIZE, 3)
    with pytest.raises(ValueError, match="actions range from 7 to 7, allowed: 0 to 6"):
        model.rollout(frames_BTHWC[:, :2], torch.full((2, 5), 7), decoding=AUTOREGRESSIVE)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (torch.full((2, 5), ACTIONS), "actions range from 5 to 5, allowed: 0 to 4"),
        (torch.full((2, 5), -1), "actions range from -1 to -1, allowed: 0 to 4"),
        (torch.zeros(2, 6, dtype=torch.int64), r"actions have shape \[2, 6\], allowed: \[2, 5\]"),
        (torch.zeros(2, 5), r"actions are torch\.float32, allowed: torch\.int64"),
    ],
)
def test_wrong_actions_are_refused(actions: torch.Tensor, message: str) -> None:
    frames_BTHWC, _ = random_clip()
    with pytest.raises(ValueError, match=message):
        guided_model()(frames_BTHWC, actions)


def test_wrong_clips_are_refused() -> None:
    model = guided_model()
    frames_BTHWC, actions_BT = random_clip()
    decoding = DecodingConfig(steps=1)
    with pytest.raises(ValueError, match="a clip has 11 frames, allowed: 1 to 6"):
        model.rollout(frames_BTHWC[:, :2], actions_BT.repeat(1, 2), decoding=decoding)
    with pytest.raises(ValueError, match="2 prime frames and 1 actions leave no frame to predict"):
        model.rollout(frames_BTHWC[:, :2], actions_BT[:, :1], decoding=decoding)
    with pytest.raises(ValueError, match="3 frames and 4 actions, allowed: 2 and 4"):
        model.uncertainty(frames_BTHWC[:, :3], actions_BT[:, :4])


@pytest.mark.parametrize("make", [guided_model, lambda: GenieRedux(unguided_config()).eval()])
@pytest.mark.parametrize(
    ("frames", "actions", "message"),
    [
        (slice(0, 2), torch.zeros(3, 4, dtype=torch.int64), r"actions have shape \[3, 4\], allowed: \[2, 4\]"),
        (slice(0, 2), torch.zeros(4, dtype=torch.int64), r"actions have shape \[4\], allowed: \[2, 4\]"),
        (slice(0, 0), torch.zeros(0, 4, dtype=torch.int64), "a batch of 0 clips, allowed: 1 or more"),
        (0, torch.zeros(2, 4, dtype=torch.int64), r"frames have shape \[2, 16, 16, 3\], allowed: \[B, T, 16, 16, 3\]"),
    ],
)
def test_batches_that_do_not_fit_are_refused(
    make: Callable[[], Any], frames: slice | int, actions: Tensor, message: str
) -> None:
    frames_BTHWC, _ = random_clip(frames=2)
    with pytest.raises(ValueError, match=message):
        make().rollout(frames_BTHWC[frames], actions, decoding=AUTOREGRESSIVE)


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dynamics\.dim is 256, allowed with a token input: the tokenizer's dim 512"):
        GenieReduxGConfig(dynamics=DynamicsConfig(dim=256))
    with pytest.raises(ValueError, match=r"dynamics\.max_frames is 32, allowed: up to the tokenizer's 16"):
        GenieReduxGConfig(dynamics=DynamicsConfig(max_frames=32))
    with pytest.raises(ValueError, match="conditioning is 'embedding', allowed here: 'latent'"):
        GenieReduxConfig(dynamics=DynamicsConfig())


@pytest.mark.parametrize("apart", [False, True])
def test_a_latent_action_model_apart_learns_from_its_own_loss_alone(apart: bool) -> None:
    """Its encoder's gradient is then that of its own loss, whatever the dynamics' is."""
    config = unguided_config()
    model = GenieRedux(replace(config, latent_actions=replace(config.latent_actions, apart=apart)))
    frames_BTHWC, _ = random_clip()

    def gradients(loss: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(loss, list(model.latent_actions.parameters()), allow_unused=True)
        return [gradient for gradient in found if gradient is not None]

    together = gradients(model(frames_BTHWC, torch.Generator().manual_seed(0)).loss)
    own = gradients(model.latent_actions(frames_BTHWC).loss)
    assert len(together) == len(own)
    same = all(torch.allclose(*pair, rtol=1e-4, atol=1e-7) for pair in zip(together, own, strict=True))
    assert same == apart
