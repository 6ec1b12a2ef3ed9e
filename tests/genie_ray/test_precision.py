"""The number format: bf16 by itself only where the processor has units for it."""

import platform
from pathlib import Path

import pytest
import torch

from genie_ray.base.precision import autocast

CPU = torch.device("cpu")
CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(platform.machine() != "x86_64" or not CPUINFO.exists(), reason="asks Linux what an x86 CPU has")
def test_a_cpu_computes_in_bf16_if_it_multiplies_it() -> None:
    flags = set(CPUINFO.read_text().split())
    with autocast("auto", CPU):
        assert torch.is_autocast_enabled("cpu") == bool(flags & {"avx512_bf16", "amx_bf16"})


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_what_is_asked_for_is_used_everywhere(precision: str, dtype: torch.dtype) -> None:
    with autocast(precision, CPU):  # type: ignore[arg-type]
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
