"""GenieRedux: a latent action model and a dynamics model that learn together."""

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny_models import moving_square, random_clip, tokenizer_config, train, unguided_config
from torch import nn

from world_model import checkpoint
from world_model.genie import GenieRedux, GenieReduxConfig
from world_model.latent_actions import LatentActionConfig, LatentActionModel
from world_model.layers.quantizer import QuantizerConfig


def config(codebook: str = "ema") -> GenieReduxConfig:
    """One block each. The published codebook ends up with a single code within a few steps; "ema" keeps most."""
    base = unguided_config()
    return dataclasses.replace(
        base,
        tokenizer=tokenizer_config("fsq"),
        dynamics=dataclasses.replace(base.dynamics, blocks=1),
        latent_actions=dataclasses.replace(
            base.latent_actions, blocks=1, quantizer=QuantizerConfig(kind=codebook, codes=7, code_dim=8)
        ),
    )


def trained_parts(model: GenieRedux) -> nn.ModuleList:
    return nn.ModuleList([model.dynamics, model.latent_actions])


def test_defaults_have_the_papers_size() -> None:
    """170 M parameters, two fifths of them in the layer that flattens a frame into its action."""
    with torch.device("meta"):
        model = LatentActionModel(LatentActionConfig())
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(168.7, abs=0.1)


def test_codes_are_looked_up_from_the_vectors() -> None:
    model = LatentActionModel(config("cosine").latent_actions).eval()
    frames_BTHWC, _ = random_clip()
    vectors_BTD = model.encode_to_vectors(frames_BTHWC)
    assert vectors_BTD.shape == (2, 5, 32)
    assert torch.equal(model.quantizer(vectors_BTD).tokens, model.encode(frames_BTHWC))
    assert torch.equal(model(frames_BTHWC).actions_BT, model.encode(frames_BTHWC))


def test_dynamics_and_latent_actions_learn_one_batch_by_heart() -> None:
    frames_BTHWC, _ = moving_square()
    model = GenieRedux(config())
    train(trained_parts(model), lambda: model(frames_BTHWC).loss, steps=170)
    metrics = model.eval()(frames_BTHWC).metrics
    assert metrics["dynamics_accuracy"] > 0.97
    assert metrics["loss"] < 0.1
    assert metrics["latent_actions_reconstruction_mse"] < 0.2 * (frames_BTHWC / 255).var()
    assert metrics["latent_actions_codes_used"] > 1


def test_a_training_that_goes_on_from_a_checkpoint_ends_with_the_same_weights(tmp_path: Path) -> None:
    frames_BTHWC, _ = random_clip()

    def learn(model: GenieRedux, optimizer: torch.optim.Optimizer, steps: range) -> None:
        model.train()
        for step in steps:
            torch.manual_seed(step)  # an "ema" codebook draws from the global stream
            optimizer.zero_grad()
            model(frames_BTHWC, torch.Generator().manual_seed(step)).loss.backward()
            optimizer.step()

    unbroken = GenieRedux(config())
    checkpoint.save(unbroken, tmp_path / "start", provenance={})
    optimizer = torch.optim.AdamW(trained_parts(unbroken).parameters())
    learn(unbroken, optimizer, range(6))

    first = checkpoint.load_as(GenieRedux, tmp_path / "start")
    optimizer = torch.optim.AdamW(trained_parts(first).parameters())
    learn(first, optimizer, range(3))
    checkpoint.save(first, tmp_path / "middle", provenance={})
    second = checkpoint.load_as(GenieRedux, tmp_path / "middle")
    resumed = torch.optim.AdamW(trained_parts(second).parameters())
    resumed.load_state_dict(optimizer.state_dict())
    learn(second, resumed, range(3, 6))
    assert checkpoint.weights_hash(second) == checkpoint.weights_hash(unbroken)


def test_clips_that_hold_no_action_are_refused() -> None:
    model = LatentActionModel(config("cosine").latent_actions)
    with pytest.raises(ValueError, match="a clip of 1 frame has no transition, allowed: 2 or more frames"):
        model.encode(random_clip(frames=1)[0])
    with pytest.raises(ValueError, match="a clip has 7 frames, allowed: 1 to 6"):
        model(random_clip(frames=7)[0])
    with pytest.raises(ValueError, match=r"frames are torch\.float32, allowed: torch\.uint8"):
        model(random_clip()[0].float())
