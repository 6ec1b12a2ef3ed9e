"""Agreement with the published implementation, on tiny checkpoints that it wrote and its outputs for them."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from world_model import checkpoint
from world_model.checkpoint import weights_hash
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieRedux, GenieReduxConfig, GenieReduxG, GenieReduxGConfig
from world_model.latent_actions import LatentActionConfig
from world_model.layers.quantizer import QuantizerConfig
from world_model.published import import_published
from world_model.tokenizer import TokenizerConfig
from world_model.uncertainty import token_entropy, top_k_mean

PACK = Path(os.environ.get("GENIE_RAY_PARITY", Path(__file__).parents[2] / ".." / "shared" / "parity"))
TOLERANCE = 1e-4
SIZES = {"dim": 48, "blocks": 2, "heads": 3, "head_dim": 16, "max_frames": 6}
TOKENIZER = TokenizerConfig(
    frame_size=24, patch_size=4, quantizer=QuantizerConfig(kind="cosine", codes=64), mean_frame=False, **SIZES
)

pytestmark = pytest.mark.skipif(
    not (PACK / "expected.safetensors").exists(),
    reason="no parity pack in ../shared/parity or the folder that GENIE_RAY_PARITY names",
)


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load_file(PACK / "expected.safetensors")


@pytest.fixture(scope="module")
def guided() -> GenieReduxG:
    model = import_published(PACK / "tokenizer.pt", PACK / "genie_redux_guided.pt", frame_size=24)
    assert isinstance(model, GenieReduxG)
    return model


@pytest.fixture(scope="module")
def unguided() -> GenieRedux:
    model = import_published(PACK / "tokenizer.pt", PACK / "genie_redux.pt")
    assert isinstance(model, GenieRedux)
    return model


def masked_clip(expected: dict[str, Tensor], mask_token: int) -> Tensor:
    """The pack's input: frames 0..4 with its mask, then frame 5, which a shifted model ignores."""
    tokens_BTHW = expected["tokens_BTHW"].long()
    visible_BTHW = tokens_BTHW[:, :-1].masked_fill(expected["mask_BTHW"], mask_token)
    return torch.cat([visible_BTHW, tokens_BTHW[:, -1:]], dim=1)


def assert_close(actual: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(actual, wanted, rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_tokens_and_reconstruction(guided: GenieReduxG, expected: dict[str, Tensor]) -> None:
    tokenizer = guided.tokenizer
    assert torch.equal(tokenizer.encode(expected["frames_BTHWC"]), expected["tokens_BTHW"].long())
    assert_close(tokenizer.decode_to_pixels(expected["tokens_BTHW"].long()), expected["reconstruction_BTHWC"])
    assert_close(tokenizer(expected["frames_BTHWC"]).reconstruction_BTHWC, expected["reconstruction_BTHWC"])


@torch.no_grad()
def test_guided_logits_and_losses(guided: GenieReduxG, expected: dict[str, Tensor]) -> None:
    dynamics, tokenizer = guided.dynamics, guided.tokenizer
    clip_BTHW = masked_clip(expected, dynamics.mask_token)
    logits_BTHWK = dynamics(clip_BTHW, expected["actions_BT"], tokenizer.token_vectors())
    assert_close(logits_BTHWK.flatten(2, 3), expected["guided_logits_BTNK"])
    metrics = dynamics.loss(
        expected["tokens_BTHW"].long(),
        expected["actions_BT"],
        expected["mask_BTHW"],
        token_vectors_KD=tokenizer.token_vectors(),
        distance_vectors_KC=tokenizer.distance_vectors(),
    ).metrics
    assert_close(metrics["cross_entropy"], expected["ce_loss"])
    assert_close(metrics["token_distance"], expected["tdce_penalty"])


def test_one_step_logits_uncertainty_and_reward(guided: GenieReduxG, expected: dict[str, Tensor]) -> None:
    prime_frames_BTHWC = expected["frames_BTHWC"][:, :2]
    logits_BTNK = guided.one_step_logits(prime_frames_BTHWC, expected["actions_BT"])
    assert_close(logits_BTNK, expected["one_step_logits_BTNK"])
    entropy_BN = token_entropy(logits_BTNK[:, -1])
    assert_close(entropy_BN, expected["entropy_BN"])
    assert_close(top_k_mean(entropy_BN, 0.25), expected["reward_top25_B"])


@torch.no_grad()
def test_latent_actions_and_unguided_logits(unguided: GenieRedux, expected: dict[str, Tensor]) -> None:
    latent = unguided.latent_actions(expected["frames_BTHWC"])
    assert torch.equal(latent.actions_BT, expected["lam_indices_BT"].long())
    assert torch.equal(unguided.latent_actions.encode(expected["frames_BTHWC"]), expected["lam_indices_BT"].long())
    assert_close(latent.reconstruction_BTHWC, expected["lam_reconstruction_BTHWC"])
    clip_BTHW = masked_clip(expected, unguided.dynamics.mask_token)
    logits_BTHWK = unguided.dynamics(clip_BTHW, latent.vectors_BTD, unguided.tokenizer.token_vectors())
    assert_close(logits_BTHWK.flatten(2, 3), expected["unguided_logits_BTNK"])


def test_the_shapes_tell_the_sizes(guided: GenieReduxG, unguided: GenieRedux) -> None:
    """All but a guided model's frame size; a GenieRedux shows it in its latent action model."""
    dynamics = DynamicsConfig(
        **SIZES,
        num_actions=5,
        conditioning="one_hot",
        actions_at="input",
        alignment="shifted",
        masking="clip",
        head="codes",
        embedding_std=1.0,
        changed_weight=0.0,
        token_input_scale=10.0,
        tdce_weight=3.0,
    )
    assert guided.config == GenieReduxGConfig(tokenizer=TOKENIZER, dynamics=dynamics)
    latent = LatentActionConfig(frame_size=24, patch_size=4, quantizer=QuantizerConfig(kind="cosine", codes=7), **SIZES)
    dynamics = replace(dynamics, conditioning="latent", token_input_scale=0.0, tdce_weight=0.0)
    assert unguided.config == GenieReduxConfig(tokenizer=TOKENIZER, dynamics=dynamics, latent_actions=latent)
    alone = import_published(PACK / "tokenizer.pt", frame_size=24, max_frames=6)
    assert alone.config == TOKENIZER
    assert weights_hash(alone) == weights_hash(guided.tokenizer)


def test_an_imported_model_comes_back_from_a_checkpoint(unguided: GenieRedux, tmp_path: Path) -> None:
    checkpoint.save(unguided, tmp_path / "genie", provenance={})
    assert weights_hash(checkpoint.load(tmp_path / "genie")) == weights_hash(unguided)


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        ("genie_redux_guided.pt", {}, r"216 positions, which do not fit frames of 64 pixels \(256 tokens\)"),
        ("genie_redux_guided.pt", {"frame_size": 26}, "frame_size is 26, allowed: multiples of patch_size 4"),
        ("genie_redux_guided.pt", {"frame_size": 24, "max_frames": 16}, "max_frames is 16, allowed: 6"),
        ("genie_redux.pt", {"frame_size": 64}, "frame_size is 64, allowed: 24"),
        ("tokenizer.pt", {}, "needed: dynamics, latent_action_model"),
    ],
)
def test_what_contradicts_the_shapes_is_refused(model: str, given: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        import_published(PACK / "tokenizer.pt", PACK / model, **given)
    assert "\n" not in str(refusal.value)


def fewer_codes(weights: dict[str, Any]) -> None:
    weights["vq._codebook.embed"] = weights["vq._codebook.embed"][:, :32]


def an_axis_less(weights: dict[str, Any]) -> None:
    weights["vq._codebook.embed"] = weights["vq._codebook.embed"][:, 0]


def no_patch_embedding(weights: dict[str, Any]) -> None:
    del weights["to_patch_emb_first_frame.2.weight"]


def a_text(weights: dict[str, Any]) -> None:
    weights["vq.project_in.bias"] = "text"


def embedded_actions(weights: dict[str, Any]) -> None:
    weights["dynamics"]["maskgit.to_logits.weight"] = torch.zeros(64, 96)


def no_actions(weights: dict[str, Any]) -> None:
    weights["dynamics"]["maskgit.to_logits.weight"] = torch.zeros(64, 48)


def no_weights(weights: dict[str, Any]) -> None:
    weights["dynamics"] = None


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("tokenizer.pt", fewer_codes, r"predicts 64 codes, .* has 32: not the tokenizer that it was trained with"),
        ("tokenizer.pt", an_axis_less, r"codebook_KC has shape \[32\], allowed: 2 axes"),
        ("tokenizer.pt", no_patch_embedding, r"does not fit: it lacks patch_embedding\.first_frame\.1\.weight"),
        ("tokenizer.pt", a_text, r"holds vq\.project_in\.bias, which is not a parameter of this model"),
        ("genie_redux_guided.pt", embedded_actions, r"takes actions as embeddings of width 48"),
        ("genie_redux_guided.pt", no_actions, r"has neither actions in its stream nor a latent action model"),
        ("genie_redux_guided.pt", no_weights, r"holds a NoneType where the weights of a part should be"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    name: str, edit: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    content = torch.load(PACK / name, weights_only=True)
    edit(content["model"])
    torch.save(content, tmp_path / name)
    files = {"tokenizer.pt": PACK / "tokenizer.pt", "genie_redux_guided.pt": PACK / "genie_redux_guided.pt"}
    files[name] = tmp_path / name
    with pytest.raises(ValueError, match=message) as refusal:
        import_published(files["tokenizer.pt"], files["genie_redux_guided.pt"], frame_size=24)
    assert "\n" not in str(refusal.value)
