"""The number format in which models compute."""

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]
"""auto: bf16 if the GPU supports it, else fp32."""


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context that models run in; their weights stay in fp32."""
    has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    wanted = precision == "bf16" or (precision == "auto" and has_bf16)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=wanted)
