"""Networks that a user gives: Fréchet distances against other libraries, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.networks import FrechetDistance, Networks


class MeanColour(torch.nn.Module):
    """Stands in for the Inception network: three features, the mean colour."""

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        assert images.shape[-1] == 299
        assert return_features
        return images.float().mean(dim=(2, 3))


class Identity(torch.nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images


class MeanDifference(torch.nn.Module):
    """Stands in for LPIPS."""

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return (images - others).abs().mean(dim=(1, 2, 3), keepdim=True)


class FirstAndLast(torch.nn.Module):
    """Stands in for a network of video features: the mean of the first frame and of the last one."""

    def forward(self, clips: Tensor) -> Tensor:
        return clips[:, :, [0, -1]].mean(dim=(1, 3, 4))


class OneFeature(torch.nn.Module):
    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        return images.float().mean(dim=(1, 2, 3))


def saved(module: torch.nn.Module, path: Path) -> str:
    torch.jit.script(module).save(str(path))
    return str(path)


def networks(**paths: str) -> Networks:
    return Networks(EvaluationConfig(predicted_frames=4, **paths), (16, 16), "cpu")


def grey(values: list[list[int]]) -> Tensor:
    """uint8 windows [B, T, 16, 16, 3], each frame of one value."""
    return torch.tensor(values, dtype=torch.uint8)[:, :, None, None, None].expand(-1, -1, 16, 16, 3)


class Given(torch.nn.Module):
    """Features as they are, for torchmetrics."""

    num_features = 5

    def forward(self, features_ND: Tensor) -> Tensor:
        return features_ND


def test_the_frechet_distance_is_that_of_torchmetrics_and_scipy() -> None:
    generator = torch.Generator().manual_seed(0)
    true_ND = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    predicted_ND = 0.3 + true_ND @ torch.randn(5, 5, generator=generator, dtype=torch.float64)
    ours, rest = FrechetDistance(), FrechetDistance()
    ours.add(predicted_ND[:20], true_ND[:20])
    rest.add(predicted_ND[20:], true_ND[20:])
    ours.merge(rest)
    theirs = FrechetInceptionDistance(feature=Given())
    theirs.update(true_ND, real=True)
    theirs.update(predicted_ND, real=False)
    assert ours.count == 60
    assert ours.value() == pytest.approx(float(theirs.compute()), rel=1e-6)
    one, two = np.cov(true_ND.numpy().T), np.cov(predicted_ND.numpy().T)
    shift = (true_ND.mean(0) - predicted_ND.mean(0)).square().sum()
    expected = float(shift) + np.trace(one + two - 2 * scipy.linalg.sqrtm(one @ two).real)
    assert ours.value() == pytest.approx(expected, rel=1e-6)


def test_a_distance_that_is_no_number_is_none() -> None:
    distance = FrechetDistance()
    assert distance.value() is None
    distance.add(torch.ones(1, 3), torch.ones(1, 3))
    assert distance.value() is None  # one vector has no covariance
    distance.add(torch.ones(1, 3), torch.full((1, 3), torch.nan))
    assert distance.value() is None


def test_each_network_is_called_as_it_is_said(tmp_path: Path) -> None:
    given = networks(
        inception_weights=saved(MeanColour(), tmp_path / "inception.pt"),
        lpips_weights=saved(MeanDifference(), tmp_path / "lpips.pt"),
        video_features=saved(FirstAndLast(), tmp_path / "video.pt"),
    )
    true, predicted = grey([[0, 0, 0, 0], [51, 102, 153, 255]]), grey([[0, 51, 0, 0], [51, 102, 153, 255]])
    features = given.features(true)
    assert features["fid"].shape == (2, 4, 3)
    assert torch.allclose(features["fid"][1, :, 0], torch.tensor([51.0, 102.0, 153.0, 255.0]))
    assert features["fvd"].shape == (2, 1, 2)
    assert torch.allclose(features["fvd"][:, 0], torch.tensor([[-1.0, -1.0], [-0.6, 1.0]]))  # pixels in [−1, 1]
    distance = given.distances(predicted, true)["lpips"]
    assert torch.allclose(distance, torch.tensor([[0, 0.4, 0, 0], [0, 0, 0, 0]], dtype=torch.float64))


def test_equal_frames_have_no_distance_and_a_shift_has_its_square(tmp_path: Path) -> None:
    given = networks(inception_weights=saved(MeanColour(), tmp_path / "inception.pt"))
    true = grey([[10, 200, 10, 200]])
    for shift, expected in ((0, 0.0), (20, 3 * 20**2)):  # equal spread, means apart in each of three features
        distance = FrechetDistance()
        distance.add(given.features(true + shift)["fid"].flatten(0, 1), given.features(true)["fid"].flatten(0, 1))
        assert distance.value() == pytest.approx(expected, abs=1e-2)


def test_without_networks_there_is_nothing() -> None:
    assert networks().features(grey([[0] * 4])) == networks().distances(grey([[0] * 4]), grey([[0] * 4])) == {}


@pytest.mark.parametrize("option", ["inception_weights", "lpips_weights", "video_features"])
def test_a_wrong_network_is_refused_for_its_true_reason(option: str, tmp_path: Path) -> None:
    text = tmp_path / "text.pt"
    text.write_text("no weights")
    identity = saved(Identity(), tmp_path / "identity.pt")
    reason = {
        "inception_weights": r"this call fails: forward\(\) expected at most 2 argument\(s\) but received 3",
        "lpips_weights": r"this call fails: .*2 argument",
        "video_features": r"for N = 2 it gives \[2, 3, 4, 16, 16\]",
    }[option]
    for path, told in (
        (str(tmp_path / "absent.pt"), "there is no such file"),
        (str(text), "it is not a TorchScript file"),
        (identity, reason),
    ):
        with pytest.raises(ValueError, match=rf"evaluation.{option} is '.*': must be .*; {told}") as raised:
            networks(**{option: path})
        assert "\n" not in str(raised.value)


def test_wrong_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"for N = 2 it gives \[2\]"):
        networks(inception_weights=saved(OneFeature(), tmp_path / "one.pt"))
    with pytest.raises(ValueError, match=r"lpips_weights .* this call fails: .*invalid for input of size 1536"):
        networks(lpips_weights=saved(Both(), tmp_path / "both.pt"))
    with pytest.raises(ValueError, match=r"inception_weights .* this call fails: .*asked for features"):
        networks(inception_weights=saved(Refuses(), tmp_path / "refuses.pt"))


class Both(torch.nn.Module):
    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        return images - others


class Refuses(torch.nn.Module):
    def forward(self, images: Tensor, return_features: bool) -> Tensor:
        if return_features:
            raise ValueError("asked for features")
        return images
