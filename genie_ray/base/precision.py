"""The number format in which models compute."""

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]
"""auto: bf16 where the GPU or the CPU multiplies it, else fp32."""


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has units for bf16; elsewhere, it is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    if not hasattr(torch.cpu, "get_capabilities"):  # older PyTorch
        return False
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def means_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether models compute in bf16 there."""
    return precision == "bf16" or (precision == "auto" and multiplies_bf16(device))


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context that models run in; their weights stay in fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=means_bf16(precision, device))
