"""Peak signal-to-noise ratio, which every room measures pictures by."""

import torch
from torch import Tensor

PSNR_CAP = 100.0
"""dB; what a frame without any error counts as (no uint8 frame with an error of one level comes near it)."""


def psnr(mean_squared_error: Tensor | float) -> Tensor:
    """PSNR in dB for pixels in [0, 1]: −10·log10(MSE), at most PSNR_CAP."""
    error = torch.as_tensor(mean_squared_error, dtype=torch.float64)
    return (-10 * torch.log10(error)).clamp(max=PSNR_CAP)
