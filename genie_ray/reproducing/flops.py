"""Operations of matrix products, convolutions and attention, as torch.utils.flop_counter counts them, but mended."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def count_flops(run: Callable[[], object]) -> int:
    """Operations of what `run` does, gradients included; element-wise work does not count."""
    with FlopCounterMode(display=False, custom_mapping=MENDED) as counter:
        run()
    return counter.get_total_flops()


def _gradients_of_convolution(gradient: Any, _: Any, weight: Any, *rest: Any, **__: Any) -> int:
    """From shapes: the gradients of input and weight each cost what the forward pass does."""
    wanted = rest[-1]  # of input, weight, bias
    return 2 * math.prod(gradient) * math.prod(weight[1:]) * (wanted[0] + wanted[1])


MENDED = {  # a kernel that PyTorch's counter passes over, and one that it takes for dense if it is depthwise
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten.convolution_backward: _gradients_of_convolution,
}
