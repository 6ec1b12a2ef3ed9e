"""Scores against hand-computed numbers."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from genie_ray.base.psnr import PSNR_CAP, psnr
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.scores import Tally, episode_interval, frame_errors, frame_ssim, psnr_gain_interval, row

CONFIG = EvaluationConfig(predicted_frames=2, delta_psnr_frame=2)


def grey(value: int, windows: int = 1, frames: int = 2) -> Tensor:
    return torch.full((windows, frames, 16, 16, 3), value, dtype=torch.uint8)


def tally(predicted: Tensor, true: Tensor, *, episodes: list[str] | None = None, **more: Tensor) -> Tally:
    found = Tally()
    values = {"errors": frame_errors(predicted, true), "ssim": frame_ssim(predicted, true)}
    found.add(episodes or ["a"] * len(true), {**values, **more})
    return found


def test_psnr_of_a_known_error() -> None:
    assert float(psnr(0.01)) == pytest.approx(20.0)
    assert float(psnr(0.0)) == PSNR_CAP


def test_pooled_psnr_is_of_the_mean_error_and_the_mean_is_of_capped_psnrs() -> None:
    """One window off by 51 of 255 (MSE 0.04), one exact: pooled −10·log10(0.02), mean (13.98 + 100) / 2."""
    scores = row(tally(torch.cat([grey(51), grey(0)]), grey(0, windows=2)), CONFIG)
    assert scores["psnr"] == pytest.approx(-10 * math.log10(0.02), abs=1e-6)
    assert scores["psnr_mean"] == pytest.approx((-10 * math.log10(0.04) + 100) / 2, abs=1e-5)
    assert scores["windows"] == 2


def test_scores_do_not_depend_on_how_windows_are_batched_and_a_part_can_be_chosen() -> None:
    generator = torch.Generator().manual_seed(0)
    config = dataclasses.replace(CONFIG, predicted_frames=3)
    predicted = torch.randint(256, (7, 3, 16, 16, 3), generator=generator, dtype=torch.uint8)
    true = torch.randint(256, (7, 3, 16, 16, 3), generator=generator, dtype=torch.uint8)
    whole, first = tally(predicted, true), tally(predicted[:1], true[:1])
    first.merge(tally(predicted[1:], true[1:]))
    ours, theirs = row(whole, config), row(first, config)
    assert ours["windows"] == theirs["windows"] == 7
    for key, curve in ours["curves"].items():
        assert theirs["curves"][key] == pytest.approx(curve, rel=1e-6)
    chosen = Tally()
    only = torch.tensor([True, False, True, False, False, False, False])
    chosen.add([*"abcdefg"], whole.values(), only=only)
    assert chosen.episodes == ["a", "c"]
    assert torch.equal(chosen.values()["errors"], whole.values()["errors"][[0, 2]])


def test_curves_tell_the_frames_apart() -> None:
    predicted = grey(0)
    predicted[:, 1] = 51
    curves = row(tally(predicted, grey(0)), CONFIG)["curves"]
    assert curves["psnr"] == pytest.approx([PSNR_CAP, -10 * math.log10(0.04)])
    assert curves["ssim"][0] == pytest.approx(1.0)
    assert curves["ssim"][1] < 0.5


def test_both_delta_psnrs_at_their_frame() -> None:
    """Errors 0.01 and 0.04 become 0.04 and 0.04: pooled 10·log10(0.08 / 0.05), mean of 6.02 dB and 0."""
    errors = torch.tensor([[0.5, 0.01], [0.5, 0.04]], dtype=torch.float64)
    random = torch.full((2, 2), 0.04, dtype=torch.float64)
    found = Tally()
    found.add(["a", "b"], {"errors": errors, "ssim": torch.ones(2, 2), "random_errors": random})
    scores = row(found, CONFIG)
    assert scores["delta_psnr"] == pytest.approx(10 * math.log10(0.08 / 0.05))
    assert scores["delta_psnr_mean"] == pytest.approx(10 * math.log10(4) / 2)
    assert scores["curves"]["delta_psnr"][1] == scores["delta_psnr"]
    # Of two episodes, a bootstrap draws one alone in half of the cases: the interval spans both.
    assert scores["delta_psnr_mean_interval"] == pytest.approx([0, 10 * math.log10(4)])
    assert scores["delta_psnr_interval"] == pytest.approx([0, 10 * math.log10(4)])
    assert scores["psnr_interval"] == pytest.approx([-10 * math.log10(0.27), -10 * math.log10(0.255)])
    still = row(tally(grey(0), grey(0)), CONFIG)
    assert still["delta_psnr"] is still["delta_psnr_mean"] is still["delta_psnr_interval"] is None


def test_a_single_episode_has_no_interval() -> None:
    scores = row(tally(grey(0, 2), grey(51, 2), random_errors=torch.ones(2, 2)), CONFIG)
    assert scores["delta_psnr"] == pytest.approx(-10 * math.log10(0.04))
    for name in ("psnr", "delta_psnr", "delta_psnr_mean"):
        assert scores[f"{name}_interval"] is None


def test_the_interval_of_a_mean_is_that_of_a_slow_bootstrap() -> None:
    rng = np.random.default_rng(1)
    values, episodes = rng.normal(size=60), [f"{index // 3}" for index in range(60)]
    found = episode_interval(lambda mean_S: mean_S, [values], episodes)
    groups = values.reshape(20, 3)
    slow = [groups[rng.integers(20, size=20)].mean() for _ in range(20_000)]
    assert found == pytest.approx(np.quantile(slow, [0.025, 0.975]), abs=0.02)


def test_gain_interval_of_a_constant_gain_is_that_gain() -> None:
    errors = np.array([0.01, 0.02, 0.03, 0.04])
    low, high = psnr_gain_interval(errors, 2 * errors, ["a", "a", "b", "c"]) or (0, 1)
    assert low == pytest.approx(high)
    assert low == pytest.approx(10 * math.log10(2))


def test_gain_interval_spans_zero_when_episodes_disagree() -> None:
    errors = [0.01] * 4 + [0.02] * 4
    low, high = psnr_gain_interval(errors, errors[::-1], ["a"] * 4 + ["b"] * 4) or (1, 1)
    assert low < 0 < high


def test_a_long_horizon_is_scored_in_slices() -> None:
    """Errors of 0.01 in frames 1–10, 0.02 in 11–30 and 0.04 in 31–35: PSNR falls by 10·log10(4) dB."""
    config = dataclasses.replace(CONFIG, predicted_frames=35)
    errors = torch.tensor([[0.01] * 10 + [0.02] * 20 + [0.04] * 5], dtype=torch.float64)
    ssim = torch.tensor([[0.9] * 10 + [0.8] * 20 + [0.7] * 5], dtype=torch.float64)
    found = Tally()
    found.add(["a"], {"errors": errors, "ssim": ssim})
    scores = row(found, config)
    assert list(scores["slices"]) == ["1-10", "11-30", "31-35"]
    assert scores["slices"]["11-30"] == pytest.approx({"psnr": -10 * math.log10(0.02), "ssim": 0.8})
    assert scores["drift"] == pytest.approx(-10 * math.log10(4))
    assert "slices" not in row(tally(grey(0), grey(0)), CONFIG)


def test_only_frames_in_rare_cells_count_for_their_psnr() -> None:
    errors = torch.tensor([[0.5, 0.01], [0.5, 0.03]], dtype=torch.float64)
    rare = torch.tensor([[False, True], [False, True]])
    found = Tally()
    seen = torch.tensor([True, False])
    found.add(["a", "b"], {"errors": errors, "ssim": torch.ones(2, 2), "seen": seen, "rare": rare})
    scores = row(found, CONFIG)
    assert scores["psnr_rare"] == pytest.approx(-10 * math.log10(0.02))
    assert (scores["rare_frames"], scores["seen_share"]) == (2, 0.5)
