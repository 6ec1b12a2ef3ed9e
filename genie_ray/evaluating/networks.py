"""Networks that a user gives as TorchScript files: Inception for FID, a picture distance (LPIPS), video features (FVD).

Each is called once before anything starts, on a picture of the test set's size, and refused in one line if its file or
its answer is wrong. FID: Heusel et al., 2017, arXiv 1706.08500; LPIPS: Zhang et al., 2018, arXiv 1801.03924; FVD:
Unterthiner et al., 2018, arXiv 1812.01717.

Axes: B windows, N pictures or clips, T frames, H W C pixels, D width of a feature vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from genie_ray.evaluating.config import EvaluationConfig

INCEPTION_SIZE = 299
NETWORKS = {
    "inception_weights": "network(uint8 [N, 3, 299, 299], return_features=True) → [N, D]",
    "lpips_weights": "network(float [N, 3, H, W], the same) → a distance for each of N, inputs in [−1, 1]",
    "video_features": "network(float [N, 3, T, H, W]) → [N, D], inputs in [−1, 1]",
}
"""Settings of `evaluation` that name a TorchScript file, and how its network is called."""

Network = Callable[..., Any]


class Networks:
    """The networks that the settings name, on one device.

    Args:
        frame_size: H and W of the frames to score.

    Raises:
        ValueError: a file is missing, not TorchScript, or its network takes or gives something else.
    """

    def __init__(self, config: EvaluationConfig, frame_size: tuple[int, int], device: torch.device | str) -> None:
        self.device = torch.device(device)
        example = torch.zeros(2, config.predicted_frames, *frame_size, 3, dtype=torch.uint8)
        picture = example[:, 0]
        inception, lpips, video = (
            None if (path := getattr(config, option)) is None else load_network(option, path, device)
            for option in NETWORKS
        )
        self._inception, self._lpips, self._video = inception, lpips, video
        if inception is not None:
            _try("inception_weights", config, lambda: inception_features(inception, picture.to(self.device)), 2)
        if lpips is not None:
            _try("lpips_weights", config, lambda: picture_distances(lpips, *[picture.to(self.device)] * 2), None)
        if video is not None:
            _try("video_features", config, lambda: clip_features(video, example.to(self.device)), 2)

    def distances(self, predicted_BTHWC: Tensor, true_BTHWC: Tensor) -> dict[str, Tensor]:
        """`lpips`: the distance of each frame [B, T], if there is such a network. Frames are uint8."""
        if self._lpips is None:
            return {}
        pictures = [rearrange(frames, "b t h w c -> (b t) h w c") for frames in (predicted_BTHWC, true_BTHWC)]
        distance_N = picture_distances(self._lpips, *(frames.to(self.device) for frames in pictures))
        return {"lpips": distance_N.double().cpu().view(predicted_BTHWC.shape[:2])}

    def features(self, frames_BTHWC: Tensor) -> dict[str, Tensor]:
        """`fid` [B, T, D] and `fvd` [B, 1, D] of uint8 frames, as far as there are networks for them."""
        frames_BTHWC, found = frames_BTHWC.to(self.device), {}
        if self._inception is not None:
            features_ND = inception_features(self._inception, rearrange(frames_BTHWC, "b t h w c -> (b t) h w c"))
            found["fid"] = rearrange(features_ND, "(b t) d -> b t d", b=len(frames_BTHWC))
        if self._video is not None:
            found["fvd"] = clip_features(self._video, frames_BTHWC)[:, None]
        return found


def load_network(option: str, path: str, device: torch.device | str) -> Network:
    """A TorchScript network in evaluation mode.

    Args:
        option: the setting of `evaluation` that names the file.

    Raises:
        ValueError: the file is missing or not TorchScript.
    """
    if not Path(path).is_file():
        raise _wrong(option, path, "there is no such file")
    try:
        return torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise _wrong(option, path, "it is not a TorchScript file (torch.jit.save)") from error


@torch.no_grad()
def inception_features(network: Network, frames_NHWC: Tensor) -> Tensor:
    """Features [N, D] of uint8 frames, resized to 299 by nearest neighbour (the paper's protocol)."""
    images = F.interpolate(rearrange(frames_NHWC, "n h w c -> n c h w").float(), size=INCEPTION_SIZE, mode="nearest")
    return network(images.byte(), return_features=True)


@torch.no_grad()
def picture_distances(network: Network, frames_NHWC: Tensor, others_NHWC: Tensor) -> Tensor:
    """The distance [N] between uint8 frames; the network may give it as [N, 1, 1, 1].

    Raises:
        RuntimeError: it gives another number of values than N.
    """
    inputs = (rearrange(_signed(frames), "n h w c -> n c h w") for frames in (frames_NHWC, others_NHWC))
    return network(*inputs).view(len(frames_NHWC))


@torch.no_grad()
def clip_features(network: Network, frames_NTHWC: Tensor) -> Tensor:
    """Features [N, D] of uint8 clips."""
    return network(rearrange(_signed(frames_NTHWC), "n t h w c -> n c t h w"))


def _signed(frames: Tensor) -> Tensor:
    """uint8 → float in [−1, 1]."""
    return frames.float() / 127.5 - 1


def _try(option: str, config: EvaluationConfig, call: Callable[[], Any], dimensions: int | None) -> None:
    """Raises ValueError unless the network answers, with that many dimensions, for two pictures or clips."""
    path = getattr(config, option)
    try:
        answer = call()
    except Exception as error:  # whatever a user's network raises
        raise _wrong(option, path, f"this call fails: {_reason(error)}") from error
    if not isinstance(answer, Tensor):
        raise _wrong(option, path, f"it gives a {type(answer).__name__}")
    if dimensions is not None and (answer.dim() != dimensions or len(answer) != 2):
        raise _wrong(option, path, f"for N = 2 it gives {list(answer.shape)}")


def _reason(error: Exception) -> str:
    """The line of a TorchScript error that says what is wrong: the last one of a traceback, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return next((line for line in reversed(lines) if "Error: " in line), lines[0])


def _wrong(option: str, path: str, why: str) -> ValueError:
    return ValueError(f"evaluation.{option} is {path!r}: must be a TorchScript file of {NETWORKS[option]}; {why}")


class FrechetDistance:
    """The Fréchet distance between normal distributions with the moments of true and of predicted features.

    |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁ Σ₂)^½), with unbiased covariances, over sums that can be merged.
    """

    def __init__(self) -> None:
        self._moments: dict[bool, tuple[int, Tensor, Tensor]] = {}  # of true ones?: count, Σx [D], Σxxᵀ [D, D]

    @property
    def count(self) -> int:
        """How many true feature vectors were added."""
        return self._moments[True][0] if self._moments else 0

    def add(self, predicted_ND: Tensor, true_ND: Tensor) -> None:
        """Adds features of predictions and of the truth."""
        for true, features_ND in ((False, predicted_ND.double()), (True, true_ND.double())):
            self._add(true, (len(features_ND), features_ND.sum(0), features_ND.T @ features_ND))

    def merge(self, other: FrechetDistance) -> None:
        """Adds everything that another one has seen."""
        for true, moments in other._moments.items():
            self._add(true, moments)

    def _add(self, true: bool, moments: tuple[int, Tensor, Tensor]) -> None:
        if true in self._moments:
            count, first_D, second_DD = self._moments[true]
            moments = (count + moments[0], first_D + moments[1], second_DD + moments[2])
        self._moments[true] = moments

    def value(self) -> float | None:
        """The distance; None for fewer than two vectors, or if a network gave something infinite or no number."""
        if self.count < 2 or not all(moments[2].isfinite().all() for moments in self._moments.values()):
            return None
        means, covariances = [], []
        for count, first_D, second_DD in self._moments.values():
            means.append(first_D / count)
            covariances.append((second_DD - count * torch.outer(means[-1], means[-1])) / (count - 1))
        values_D, vectors_DD = torch.linalg.eigh(covariances[0])
        root_DD = vectors_DD * values_D.clamp(min=0).sqrt() @ vectors_DD.T
        shared_D = torch.linalg.eigvalsh(root_DD @ covariances[1] @ root_DD).clamp(min=0).sqrt()
        spread = sum(covariance.trace() for covariance in covariances) - 2 * shared_D.sum()
        return max(float((means[0] - means[1]).square().sum() + spread), 0.0)


def given_networks(config: EvaluationConfig) -> Mapping[str, str]:
    """The networks that the settings name: setting → file."""
    return {option: path for option in NETWORKS if (path := getattr(config, option)) is not None}
