"""Agreement with the published implementation, on tiny checkpoints that it wrote and what it computes from them."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieRedux, GenieReduxConfig, GenieReduxG, GenieReduxGConfig
from world_model.latent_actions import LatentActionConfig
from world_model.published import import_published
from world_model.quantizer import QuantizerConfig
from world_model.tokenizer import TokenizerConfig
from world_model.uncertainty import token_entropy, uncertainty_reward

PACK = Path(os.environ.get("GENIE_RAY_PARITY", Path(__file__).parents[2] / ".." / "shared" / "parity"))
TOLERANCE = 1e-4
SIZES = {"dim": 48, "blocks": 2, "heads": 3, "head_dim": 16, "max_frames": 6}
TOKENIZER = TokenizerConfig(frame_size=24, patch_size=4, quantizer=QuantizerConfig(codes=64), **SIZES)

pytestmark = pytest.mark.skipif(
    not (PACK / "expected.safetensors").exists(),
    reason="no parity pack in ../shared/parity or the folder that GENIE_RAY_PARITY names",
)


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return load_file(PACK / "expected.safetensors")


@pytest.fixture(scope="module")
def guided() -> GenieReduxG:
    config = GenieReduxGConfig(tokenizer=TOKENIZER, dynamics=DynamicsConfig(num_actions=5, **SIZES))
    return import_published(PACK / "tokenizer.pt", PACK / "genie_redux_guided.pt", config)


@pytest.fixture(scope="module")
def unguided() -> GenieRedux:
    config = GenieReduxConfig(
        tokenizer=TOKENIZER,
        dynamics=DynamicsConfig(conditioning="latent", token_input_scale=0.0, tdce_weight=0.0, **SIZES),
        latent_actions=LatentActionConfig(frame_size=24, patch_size=4, quantizer=QuantizerConfig(codes=7), **SIZES),
    )
    return import_published(PACK / "tokenizer.pt", PACK / "genie_redux.pt", config)


def masked_clip(expected: dict[str, Tensor], mask_token: int) -> Tensor:
    """The pack's input: frames 0..4 with its mask, then frame 5, which a shifted model does not look at."""
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
        code_vectors_KC=tokenizer.code_vectors(),
    ).metrics
    assert_close(metrics["cross_entropy"], expected["ce_loss"])
    assert_close(metrics["token_distance"], expected["tdce_penalty"])


def test_one_step_logits_uncertainty_and_reward(guided: GenieReduxG, expected: dict[str, Tensor]) -> None:
    prime_frames_BTHWC = expected["frames_BTHWC"][:, :2]
    logits_BTNK = guided.one_step_logits(prime_frames_BTHWC, expected["actions_BT"])
    assert_close(logits_BTNK, expected["one_step_logits_BTNK"])
    entropy_BN = token_entropy(logits_BTNK[:, -1])
    assert_close(entropy_BN, expected["entropy_BN"])
    assert_close(uncertainty_reward(entropy_BN, top_k_fraction=0.25), expected["reward_top25_B"])


@torch.no_grad()
def test_latent_actions_and_unguided_logits(unguided: GenieRedux, expected: dict[str, Tensor]) -> None:
    latent = unguided.latent_actions(expected["frames_BTHWC"])
    assert torch.equal(latent.actions_BT, expected["lam_indices_BT"].long())
    assert torch.equal(unguided.latent_actions.encode(expected["frames_BTHWC"]), expected["lam_indices_BT"].long())
    assert_close(latent.reconstruction_BTHWC, expected["lam_reconstruction_BTHWC"])
    clip_BTHW = masked_clip(expected, unguided.dynamics.mask_token)
    logits_BTHWK = unguided.dynamics(clip_BTHW, latent.vectors_BTD, unguided.tokenizer.token_vectors())
    assert_close(logits_BTHWK.flatten(2, 3), expected["unguided_logits_BTNK"])


def test_a_file_of_another_size_is_refused() -> None:
    config = TokenizerConfig(frame_size=24, patch_size=4, quantizer=QuantizerConfig(codes=32), **SIZES)
    with pytest.raises(ValueError, match=r"quantizer\.codebook_KC has shape \[64, 32\], allowed: \[32, 32\]"):
        import_published(PACK / "tokenizer.pt", None, config)


def test_a_foreign_file_is_refused() -> None:
    with pytest.raises(ValueError, match="holds dynamics, which is no parameter of this model"):
        import_published(PACK / "genie_redux_guided.pt", None, TOKENIZER)
    with pytest.raises(ValueError, match="is no published checkpoint"):
        import_published(PACK / "config.json", None, TOKENIZER)
