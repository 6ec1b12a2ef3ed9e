"""Dynamics prepared for many questions give the answers of the model itself, and leave it as it is."""

import pytest
import torch

from tests.world_model.tiny_models import guided_model, random_clip
from world_model.frozen import FrozenDynamics
from world_model.layers.attention import Attention, attend
from world_model.layers.transformer import SpatioTemporalTransformer, TransformerCache


def settle(model: torch.nn.Module) -> None:
    """Gives norms and heads, which begin with ones and zeros, weights that can be lost."""
    for name, parameter in model.named_parameters():
        if "norm" in name or "to_logits" in name or "scale" in name:
            torch.nn.init.normal_(parameter, 1.0, 0.3)


@pytest.mark.parametrize("alignment", ["shifted", "aligned"])
@pytest.mark.parametrize(("kind", "head"), [("fsq", "levels"), ("cosine", "codes")])
@torch.no_grad()
def test_the_last_frames_answers_are_the_models(alignment: str, kind: str, head: str) -> None:
    model = guided_model(kind, alignment=alignment, head=head)
    settle(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frames_BTHWC, actions_BT = random_clip(batch=3)
    frozen = FrozenDynamics(model.dynamics, model.tokenizer.token_vectors(), copied=True)
    features_BNE = frozen.last_features(model.tokenizer.encode(frames_BTHWC[:, :2]), actions_BT[:, :4])
    wanted_BTNE = model.one_step_features(frames_BTHWC[:, :2], actions_BT[:, :4])
    assert wanted_BTNE.shape[1] == 3
    torch.testing.assert_close(features_BNE, wanted_BTNE[:, -1], rtol=1e-4, atol=1e-4)
    wanted_BNK = model.one_step_logits(frames_BTHWC[:, :2], actions_BT[:, :4])[:, -1]
    torch.testing.assert_close(frozen.logits(features_BNE), wanted_BNK, rtol=1e-4, atol=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@torch.no_grad()
def test_under_autocast_it_stays_close_and_its_logits_are_exact_products() -> None:
    model = guided_model("fsq", alignment="aligned", head="levels")
    frames_BTHWC, actions_BT = random_clip(batch=3)
    tokens_BTHW, vectors_KD = model.tokenizer.encode(frames_BTHWC[:, :2]), model.tokenizer.token_vectors()
    exact = FrozenDynamics(model.dynamics, vectors_KD)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = FrozenDynamics(model.dynamics, vectors_KD)
    answers = [frozen.last_features(tokens_BTHW, actions_BT[:, :4]) for frozen in (exact, rounded)]
    assert answers[1].dtype == torch.bfloat16
    torch.testing.assert_close(answers[1].float(), answers[0], rtol=0.05, atol=0.1)
    assert not torch.equal(answers[1].float(), answers[0])
    wanted = model.dynamics.to_logits(answers[1])
    assert wanted.dtype == torch.float32
    torch.testing.assert_close(rounded.logits(answers[1]), wanted)


@torch.no_grad()
def test_a_folded_norm_changes_nothing_though_inputs_are_far_from_zero() -> None:
    attention = Attention(dim=24, heads=2, head_dim=8)
    torch.nn.init.normal_(attention.norm.weight)
    x_MSD, bias_hSS = 5 + 3 * torch.randn(4, 6, 24), torch.randn(2, 6, 6)
    wanted_MSD = attention(x_MSD, bias_hSS)
    attention.fold_norm()
    torch.testing.assert_close(attention(x_MSD, bias_hSS), wanted_MSD, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fed", [(5,), (2, 3)])
@torch.no_grad()
def test_frames_that_nobody_asks_for_are_read_all_the_same(fed: tuple[int, ...]) -> None:
    stack = SpatioTemporalTransformer(dim=32, blocks=2, heads=2, head_dim=16, max_frames=6)
    spatial_bias_hNN, x_BTHWD = torch.randn(2, 16, 16), torch.randn(2, 5, 4, 4, 32)
    wanted_BTHWD = stack(x_BTHWD, spatial_bias_hNN)
    cache, start = TransformerCache(stack, 6), 0
    for count in fed:
        piece_BTHWD = x_BTHWD[:, start : start + count]
        given_BTHWD = stack(piece_BTHWD, spatial_bias_hNN, cache=cache, start=start, skipped=count - 1)
        torch.testing.assert_close(given_BTHWD, wanted_BTHWD[:, start + count - 1 : start + count])
        start += count
    torch.testing.assert_close(stack(x_BTHWD, spatial_bias_hNN, skipped=3), wanted_BTHWD[:, 3:])


@pytest.mark.parametrize("asked", [7, 2])
@torch.no_grad()
def test_attention_in_bf16_is_that_in_fp32_but_for_rounding(asked: int) -> None:
    q, k, v = (z / z.norm(dim=-1, keepdim=True) for z in torch.randn(3, 5, 2, 7, 16))
    q, bias_hSS = 8 * q[:, :, -asked:], torch.randn(2, asked, 7)
    wanted = torch.softmax(q @ k.transpose(-1, -2) + bias_hSS, dim=-1) @ v
    given = attend(*(z.bfloat16() for z in (q, k, v, bias_hSS)))
    assert given.dtype == torch.bfloat16
    torch.testing.assert_close(given.float(), wanted, rtol=0.05, atol=0.02)
