"""Operations, against counts by hand."""

import torch
import torch.nn.functional as F

from genie_ray.reproducing.flops import count_flops


def test_a_depthwise_convolution_and_its_gradients() -> None:
    """Each of 2 × 8 × 5 × 5 outputs takes 9 products and sums; each of two gradients as many."""
    x, weight = torch.randn(2, 8, 5, 5, requires_grad=True), torch.randn(8, 1, 3, 3, requires_grad=True)
    forward = 2 * 9 * 2 * 8 * 5 * 5
    assert count_flops(lambda: F.conv2d(x, weight, padding=1, groups=8)) == forward
    assert count_flops(lambda: F.conv2d(x, weight, padding=1, groups=8).sum().backward()) == 3 * forward
    assert count_flops(lambda: F.conv2d(x.detach(), weight, padding=1, groups=8).sum().backward()) == 2 * forward


def test_a_full_convolution_and_its_gradients() -> None:
    x, weight = torch.randn(2, 3, 5, 5, requires_grad=True), torch.randn(4, 3, 3, 3, requires_grad=True)
    forward = 2 * (3 * 9) * (2 * 4 * 5 * 5)
    assert count_flops(lambda: F.conv2d(x, weight, padding=1).sum().backward()) == 3 * forward


def test_attention_on_a_cpu() -> None:
    q = torch.randn(1, 2, 16, 8)
    with torch.no_grad():
        assert count_flops(lambda: F.scaled_dot_product_attention(q, q, q)) == 2 * (2 * 2 * 16 * 16 * 8)
