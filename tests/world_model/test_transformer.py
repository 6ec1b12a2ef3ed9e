"""The ST block against slower, independent formulations, and its causality."""

import pytest
import torch
import torch.nn.functional as F

from world_model.layers.attention import Attention, attend
from world_model.layers.position_bias import causal_alibi_bias
from world_model.layers.transformer import PositionEncodingGenerator, SpatioTemporalTransformer


def test_peg_is_a_causal_depthwise_convolution() -> None:
    peg = PositionEncodingGenerator(dim=7)
    x_BTHWD = torch.randn(2, 5, 4, 3, 7, requires_grad=True)
    padded = F.pad(x_BTHWD.permute(0, 4, 1, 2, 3), (1, 1, 1, 1, 2, 0))
    wanted = peg.conv(padded).permute(0, 2, 3, 4, 1)
    torch.testing.assert_close(peg(x_BTHWD), wanted)
    weights = torch.randn_like(wanted)
    wanted_grads = torch.autograd.grad((wanted * weights).sum(), [x_BTHWD, peg.conv.weight, peg.conv.bias])
    grads = torch.autograd.grad((peg(x_BTHWD) * weights).sum(), [x_BTHWD, peg.conv.weight, peg.conv.bias])
    torch.testing.assert_close(grads, wanted_grads)


def test_attention_against_its_definition() -> None:
    attention = Attention(dim=12, heads=2, head_dim=4)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    x, bias = torch.randn(3, 5, 12, requires_grad=True), torch.randn(2, 5, 5, requires_grad=True)
    q = attention.to_q(F.layer_norm(x, (12,)) * attention.norm.weight)
    k, v = attention.to_kv(x).chunk(2, dim=-1)
    heads = []
    for head in range(2):
        part = slice(4 * head, 4 * head + 4)
        q_h = F.normalize(q[..., part], dim=-1) * attention.q_scale
        k_h = F.normalize(k[..., part], dim=-1) * attention.k_scale
        heads.append((8 * q_h @ k_h.transpose(1, 2) + bias[head]).softmax(dim=-1) @ v[..., part])
    wanted, given = attention.to_out(torch.cat(heads, dim=-1)), attention(x, bias)
    torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(attention(x, bias), wanted, rtol=1e-4, atol=1e-4)
    weights, leaves = torch.randn_like(given), [x, bias, *attention.parameters()]
    wanted_grads, grads = (torch.autograd.grad((y * weights).sum(), leaves) for y in (wanted, given))
    torch.testing.assert_close(grads, wanted_grads, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", ["st", "ts"])
@torch.no_grad()
def test_no_frame_sees_a_later_one(order: str) -> None:
    stack = SpatioTemporalTransformer(dim=32, blocks=2, heads=2, head_dim=16, max_frames=6, order=order)
    spatial_bias_hNN = torch.randn(2, 16, 16)
    x_BTHWD = torch.randn(1, 6, 4, 4, 32)
    changed_BTHWD = x_BTHWD.clone()
    changed_BTHWD[:, 3, 1, 2] += 1
    difference_T = (stack(x_BTHWD, spatial_bias_hNN) - stack(changed_BTHWD, spatial_bias_hNN)).abs().amax((0, 2, 3, 4))
    assert (difference_T[:3] == 0).all()
    assert (difference_T[3:] > 1e-4).all()


@pytest.mark.parametrize(("rows", "length", "asked"), [(8, 4, 4), (6, 15, 15), (8, 10, 2), (5, 4, 4), (4, 40, 40)])
def test_packed_sequences_do_not_see_each_other(rows: int, length: int, asked: int) -> None:
    k, v = torch.randn(2, rows, 2, length, 8)
    q, bias_hSS = torch.randn(rows, 2, asked, 8), causal_alibi_bias(2, length)[:, -asked:]
    wanted = torch.softmax(q @ k.transpose(-1, -2) + bias_hSS, dim=-1) @ v
    with torch.no_grad():
        torch.testing.assert_close(attend(q, k, v, bias_hSS), wanted)
