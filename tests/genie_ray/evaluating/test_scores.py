"""Scores against hand-computed numbers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from genie_ray.base.psnr import PSNR_CAP, psnr
from genie_ray.evaluating.scores import FrechetDistance, HorizonScores, load_inception, psnr_gain_interval


def grey(value: int, windows: int = 1, frames: int = 2) -> Tensor:
    return torch.full((windows, frames, 16, 16, 3), value, dtype=torch.uint8)


def test_psnr_of_a_known_error() -> None:
    assert float(psnr(0.01)) == pytest.approx(20.0)
    assert float(psnr(0.0)) == PSNR_CAP


def test_pooled_psnr_is_of_the_mean_error_and_the_mean_is_of_capped_psnrs() -> None:
    """One window off by 51 of 255 (MSE 0.04), one exact: pooled −10·log10(0.02), mean (13.98 + 100) / 2."""
    scores = HorizonScores(2)
    scores.add(torch.cat([grey(51), grey(0)]), grey(0, windows=2))
    assert scores.summary()["psnr"] == pytest.approx(-10 * math.log10(0.02), abs=1e-6)
    assert scores.summary()["psnr_mean"] == pytest.approx((-10 * math.log10(0.04) + 100) / 2, abs=1e-5)
    assert scores.window_errors == pytest.approx([0.04, 0.0])


def test_scores_do_not_depend_on_how_windows_are_batched() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randint(256, (7, 3, 16, 16, 3), generator=generator, dtype=torch.uint8)
    true = torch.randint(256, (7, 3, 16, 16, 3), generator=generator, dtype=torch.uint8)
    whole, first, rest = HorizonScores(3), HorizonScores(3), HorizonScores(3)
    whole.add(predicted, true)
    first.add(predicted[:1], true[:1])
    rest.add(predicted[1:], true[1:])
    first.merge(rest)
    assert first.windows == whole.windows == 7
    for key, curve in whole.curves().items():
        assert first.curves()[key] == pytest.approx(curve, rel=1e-6)


def test_curves_tell_the_frames_apart() -> None:
    scores = HorizonScores(2)
    predicted = grey(0)
    predicted[:, 1] = 51
    scores.add(predicted, grey(0))
    assert scores.curves()["psnr"] == pytest.approx([PSNR_CAP, -10 * math.log10(0.04)])
    assert scores.curves()["ssim"][0] == pytest.approx(1.0)
    assert scores.curves()["ssim"][1] < 0.5


def test_gain_interval_of_a_constant_gain_is_that_gain() -> None:
    errors = np.array([0.01, 0.02, 0.03, 0.04])
    low, high = psnr_gain_interval(errors, 2 * errors, ["a", "a", "b", "c"])
    assert low == pytest.approx(high)
    assert low == pytest.approx(10 * math.log10(2))


def test_gain_interval_spans_zero_when_episodes_disagree() -> None:
    low, high = psnr_gain_interval([0.01] * 4 + [0.02] * 4, [0.02] * 4 + [0.01] * 4, ["a"] * 4 + ["b"] * 4)
    assert low < 0 < high


class MeanColour(torch.nn.Module):
    """Stands in for the Inception network: three features, the mean colour."""

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        assert images.shape[-1] == 299
        assert return_features
        return images.float().mean(dim=(2, 3))


def test_fid_loads_a_torchscript_file_and_is_zero_for_equal_sets(tmp_path: Path) -> None:
    path = tmp_path / "inception.pt"
    torch.jit.script(MeanColour()).save(str(path))
    distance = FrechetDistance(load_inception(str(path)), torch.device("cpu"))
    frames = torch.stack([grey(10)[0], grey(200)[0]])
    distance.add(frames, frames)
    assert distance.value() == pytest.approx(0.0, abs=1e-2)
    shifted = FrechetDistance(load_inception(str(path)), torch.device("cpu"))
    shifted.add(frames + 20, frames)  # equal spread, means 20 apart in each of three features
    assert shifted.value() == pytest.approx(3 * 20**2, rel=1e-3)


def test_a_wrong_inception_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        load_inception(str(tmp_path / "absent.pt"))
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ValueError, match="not a TorchScript file"):
        load_inception(str(tmp_path / "text.pt"))
