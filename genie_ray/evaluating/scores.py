"""Image scores over the prediction horizon: PSNR of the pooled error, mean of per-frame PSNR, SSIM, FID.

Retro scenes often stand still, so perfect frames (infinite PSNR) dominate the published mean of per-frame values. The
pooled value is therefore the main one here; the mean, capped at 100 dB, is given beside it. All scores are accumulated
as sums, so that uneven batches are weighted correctly.
Axes: B batch, T predicted frames, H W C pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image.fid import FrechetInceptionDistance

from genie_ray.base.psnr import PSNR_CAP, psnr

BOOTSTRAP_SAMPLES = 2_000
INCEPTION_SIZE = 299
NO_INCEPTION = "no Inception weights given: evaluation.inception_weights=<TorchScript file>"
"""Why the FID column is empty."""


class HorizonScores:
    """Accumulates the scores of each predicted frame 1..T separately."""

    def __init__(self, horizon: int) -> None:
        self._squared_error = torch.zeros(horizon, dtype=torch.float64)
        self._psnr = torch.zeros(horizon, dtype=torch.float64)
        self._ssim = torch.zeros(horizon, dtype=torch.float64)
        self.window_errors: list[float] = []  # mean squared error of each window, in the order added

    @property
    def windows(self) -> int:
        """How many windows were added."""
        return len(self.window_errors)

    def add(self, predicted_BTHWC: Tensor, true_BTHWC: Tensor) -> None:
        """Adds a batch of uint8 predictions."""
        predicted, true = predicted_BTHWC.float() / 255, true_BTHWC.float() / 255
        error_BT = (predicted - true).double().square().mean(dim=(2, 3, 4))
        ssim = structural_similarity_index_measure(
            rearrange(predicted, "b t h w c -> (b t) c h w"),
            rearrange(true, "b t h w c -> (b t) c h w"),
            data_range=1.0,
            reduction="none",
        )
        assert isinstance(ssim, Tensor)
        self._squared_error += error_BT.sum(0).cpu()
        self._psnr += psnr(error_BT).sum(0).cpu()
        self._ssim += ssim.view(error_BT.shape).double().sum(0).cpu()
        self.window_errors += error_BT.mean(1).tolist()

    def merge(self, other: HorizonScores) -> None:
        """Adds everything that another accumulator has seen."""
        self._squared_error += other._squared_error
        self._psnr += other._psnr
        self._ssim += other._ssim
        self.window_errors += other.window_errors

    def curves(self) -> dict[str, list[float]]:
        """Each score for predicted frame 1..T."""
        return {
            "psnr": psnr(self._squared_error / self.windows).tolist(),
            "psnr_mean": (self._psnr / self.windows).tolist(),
            "ssim": (self._ssim / self.windows).tolist(),
        }

    def summary(self) -> dict[str, float]:
        """Each score over all predicted frames."""
        return {
            "psnr": float(psnr(self._squared_error.mean() / self.windows)),
            "psnr_mean": float(self._psnr.mean() / self.windows),
            "ssim": float(self._ssim.mean() / self.windows),
        }


def psnr_gain_interval(
    errors: Sequence[float], baseline_errors: Sequence[float], episodes: Sequence[str], *, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the gain in pooled PSNR (dB) over a baseline on the same windows.

    A paired bootstrap over whole episodes: the windows of one episode resemble each other, so they are drawn together.

    Args:
        errors, baseline_errors: mean squared error of each window under the two models.
        episodes: the episode of each window.
    """
    _, group = np.unique(np.asarray(episodes), return_inverse=True)
    ours, theirs = (np.bincount(group, weights=np.asarray(values)) for values in (errors, baseline_errors))
    picks = np.random.default_rng(seed).integers(len(ours), size=(BOOTSTRAP_SAMPLES, len(ours)))
    floor = 10 ** (-PSNR_CAP / 10)
    gains = 10 * np.log10(np.maximum(theirs[picks].sum(1), floor) / np.maximum(ours[picks].sum(1), floor))
    low, high = np.quantile(gains, [0.025, 0.975])
    return float(low), float(high)


class InceptionFeatures(nn.Module):
    """The pooled Inception features (2048) of uint8 frames, resized to 299 by nearest neighbour (the paper's protocol).

    Args:
        weights: the TorchScript Inception network commonly used for FID ("inception-2015-12-05.pt").
    """

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.network: Any = torch.jit.load(str(weights), map_location="cpu").eval()
        self.num_features = self(torch.zeros(1, 1, 1, 3, dtype=torch.uint8)).shape[1]

    def forward(self, frames_NHWC: Tensor) -> Tensor:
        """uint8 [N, H, W, 3] → float [N, num_features]."""
        images = F.interpolate(
            rearrange(frames_NHWC, "n h w c -> n c h w").float(), size=INCEPTION_SIZE, mode="nearest"
        )
        return self.network(images.byte(), return_features=True)


class FrechetDistance:
    """FID between true and predicted frames."""

    def __init__(self, features: InceptionFeatures, device: torch.device) -> None:
        self._metric = FrechetInceptionDistance(feature=features).to(device)

    def add(self, predicted_BTHWC: Tensor, true_BTHWC: Tensor) -> None:
        """Adds a batch of uint8 frames."""
        self._metric.update(rearrange(true_BTHWC, "b t h w c -> (b t) h w c"), real=True)
        self._metric.update(rearrange(predicted_BTHWC, "b t h w c -> (b t) h w c"), real=False)

    def value(self) -> float:
        """The distance over everything added; NaN for fewer than two frames."""
        return float(self._metric.compute()) if self._metric.real_features_num_samples >= 2 else math.nan


def load_inception(weights: str) -> InceptionFeatures:
    """The feature network.

    Raises:
        ValueError: the file is missing or not a TorchScript file.
    """
    if not Path(weights).is_file():
        raise ValueError(f"evaluation.inception_weights = {weights!r}: no such file")
    try:
        return InceptionFeatures(Path(weights))
    except RuntimeError as error:
        raise ValueError(f"evaluation.inception_weights = {weights!r}: not a TorchScript file") from error
