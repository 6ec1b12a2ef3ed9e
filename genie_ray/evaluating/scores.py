"""From what is measured on each window to the scores of a row: PSNR, SSIM, ΔPSNR, intervals, slices of the horizon.

Retro scenes often stand still, so perfect frames (infinite PSNR) dominate the published mean of per-frame values. The
PSNR of the pooled error is therefore the main one here; the mean, capped at 100 dB, is given beside it.

Axes: B windows of a batch, W all windows, T predicted frames, H W C pixels, E episodes, S bootstrap samples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import ArrayLike
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from genie_ray.base.psnr import psnr
from genie_ray.evaluating.action_probe import ProbeSamples
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.inverse_dynamics import accuracy
from genie_ray.evaluating.networks import FrechetDistance
from world_model.control import ActionLikelihoods

BOOTSTRAP_SAMPLES = 2_000
SLICES = ((1, 10), (11, 30), (31, 100))
"""Predicted frames, first and last, that long predictions are scored in."""

Interval = list[float]  # low, high


def frame_errors(predicted_BTHWC: Tensor, true_BTHWC: Tensor) -> Tensor:
    """Mean squared error of each frame [B, T], float64, of pixels in [0, 1]; frames are uint8."""
    return ((predicted_BTHWC.float() - true_BTHWC.float()) / 255).double().square().mean(dim=(2, 3, 4)).cpu()


def frame_ssim(predicted_BTHWC: Tensor, true_BTHWC: Tensor) -> Tensor:
    """SSIM of each frame [B, T], float64 (Wang et al., 2004, as in torchmetrics); frames are uint8."""
    predicted, true = (
        rearrange(frames, "b t h w c -> (b t) c h w").float() / 255 for frames in (predicted_BTHWC, true_BTHWC)
    )
    ssim = structural_similarity_index_measure(predicted, true, data_range=1.0, reduction="none")
    assert isinstance(ssim, Tensor)
    return ssim.double().cpu().view(predicted_BTHWC.shape[:2])


class Tally:
    """What was measured on the windows of one row of the table.

    Attributes:
        episodes: the id of each window's episode.
        distances: by name, `fid` or `fvd`.
        samples: of latent actions; empty for a model that has none.
    """

    def __init__(self) -> None:
        self.episodes: list[str] = []
        self.distances: dict[str, FrechetDistance] = {}
        self.samples = ProbeSamples()
        self._values: dict[str, list[Tensor]] = defaultdict(list)

    def add(
        self,
        episodes: Sequence[str],
        values: Mapping[str, Tensor],
        features: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        *,
        only: Tensor | None = None,
    ) -> None:
        """Adds windows.

        Args:
            episodes: the id of each one's episode.
            values: any measures, name → [B, ...]; `errors`, `ssim`, `random_errors`, … of each frame are [B, T].
            features: name → those of predictions and of the truth, each [B, n, D].
            only: bool [B], which of the windows to add; None: all.
        """
        chosen = torch.arange(len(episodes)) if only is None else only.nonzero()[:, 0]
        self.episodes += [episodes[index] for index in chosen]
        for name, value in values.items():
            self._values[name].append(value[chosen])
        for name, pair in (features or {}).items():
            predicted_ND, true_ND = (values_BND[chosen.to(values_BND.device)].flatten(0, 1) for values_BND in pair)
            self.distances.setdefault(name, FrechetDistance()).add(predicted_ND, true_ND)

    def note(self, name: str, value_W: Tensor) -> None:
        """Adds a measure of all windows so far."""
        self._values[name] = [value_W]

    def merge(self, other: Tally) -> None:
        """Adds everything that another one has seen."""
        self.add(other.episodes, other.values())
        self.samples.merge(other.samples)
        for name, distance in other.distances.items():
            self.distances.setdefault(name, FrechetDistance()).merge(distance)

    def values(self) -> dict[str, Tensor]:
        """Each measure of all windows, name → [W, ...]; what was not measured on all of them is left out."""
        joined = {name: torch.cat(parts) for name, parts in self._values.items()}
        return {name: value for name, value in joined.items() if len(value) == len(self.episodes)}


def row(tally: Tally, config: EvaluationConfig) -> dict[str, Any]:
    """All scores of a tally. A score that could not be computed is None; one that was not asked for is absent."""
    values = tally.values()
    scores: dict[str, Any] = {"windows": len(tally.episodes)}
    curves: dict[str, list[float]] = {}
    for part in (_pictures, _control, _likelihoods, _recognised, _horizon, _networks, _probes, _rare):
        found = part(values, tally, config)
        curves |= found.pop("curves", {})
        scores |= found
    return scores | {"curves": curves}


def full_row(tally: Tally, parts: Mapping[str, Tally], config: EvaluationConfig) -> dict[str, Any]:
    """The scores on all windows and, by name, on each part of them; None for an empty part."""
    return row(tally, config) | {name: row(part, config) if part.episodes else None for name, part in parts.items()}


def _pictures(values: Mapping[str, Tensor], tally: Tally, config: EvaluationConfig) -> dict[str, Any]:
    """PSNR and SSIM over all predicted frames, and as curves."""
    errors_WT, ssim_WT = values["errors"], values["ssim"]
    return {
        "psnr": float(psnr(errors_WT.mean())),
        "psnr_interval": psnr_interval(errors_WT.mean(1), tally.episodes),
        "psnr_mean": float(psnr(errors_WT).mean()),
        "ssim": float(ssim_WT.mean()),
        "curves": {
            "psnr": psnr(errors_WT.mean(0)).tolist(),
            "psnr_mean": psnr(errors_WT).mean(0).tolist(),
            "ssim": ssim_WT.mean(0).tolist(),
        },
    }


def _control(values: Mapping[str, Tensor], tally: Tally, config: EvaluationConfig) -> dict[str, Any]:
    """ΔPSNR of the pooled error, and of the mean of per-frame PSNR: at its frame with intervals, and as curves."""
    keys = ("delta_psnr", "delta_psnr_mean")
    if "random_errors" not in values:
        return {name: None for key in keys for name in (key, f"{key}_interval")}
    errors_WT, random_WT = values["errors"], values["random_errors"]
    gains_WT = psnr(errors_WT) - psnr(random_WT)
    pooled_T = psnr(errors_WT.mean(0)) - psnr(random_WT.mean(0))
    found = _gains(errors_WT, random_WT, tally.episodes, config)
    if (chosen_W := values.get("controllable")) is not None:
        episodes = [name for name, chosen in zip(tally.episodes, chosen_W.tolist(), strict=True) if chosen]
        found["controllable"] = {"windows": len(episodes)}
        if episodes:
            found["controllable"] |= _gains(errors_WT[chosen_W], random_WT[chosen_W], episodes, config)
    return found | {"curves": {"delta_psnr": pooled_T.tolist(), "delta_psnr_mean": gains_WT.mean(0).tolist()}}


def _gains(errors_WT: Tensor, random_WT: Tensor, episodes: Sequence[str], config: EvaluationConfig) -> dict[str, Any]:
    """Both ΔPSNRs at their frame, with intervals."""
    errors_W, random_W = (values_WT[:, config.delta_psnr_frame - 1] for values_WT in (errors_WT, random_WT))
    gains_W = psnr(errors_W) - psnr(random_W)
    return {
        "delta_psnr": float(psnr(errors_W.mean()) - psnr(random_W.mean())),
        "delta_psnr_interval": psnr_gain_interval(errors_W, random_W, episodes),
        "delta_psnr_mean": float(gains_W.mean()),
        "delta_psnr_mean_interval": episode_interval(lambda gain_S: gain_S, [gains_W], episodes),
    }


def highest_gains(tally: Tally, config: EvaluationConfig) -> Tensor:
    """Per-frame ΔPSNR of each window at its frame, in dB [W]; of a tokenizer alone, the most that a model can score."""
    values, at = tally.values(), config.delta_psnr_frame - 1
    return psnr(values["errors"][:, at]) - psnr(values["random_errors"][:, at])


def _likelihoods(values: Mapping[str, Tensor], tally: Tally, config: EvaluationConfig) -> dict[str, Any]:
    """How much likelier the true action makes what it changed, at the frame of ΔPSNR given the true past."""
    if "nll" not in values:
        return {}
    found = ActionLikelihoods(values["nll"], values["changed"])
    control = {name: float(value) for name, value in found.control(values["last_action"]).items()}
    if not control:
        return {}
    gap_W, actions = found.gaps(values["last_action"]), values["nll"].shape[1]
    interval = episode_interval(lambda gap_S, changed_S: gap_S / changed_S, [gap_W, values["changed"]], tally.episodes)
    return control | {"nll_gap_interval": interval, "action_chance": 1 / actions}


def _recognised(values: Mapping[str, Tensor], tally: Tally, config: EvaluationConfig) -> dict[str, Any]:
    """How often an inverse-dynamics classifier sees in the predicted frames the action that led to each."""
    if "recognised" not in values:
        return {}
    answers_WT, actions_WT = values["recognised"], values["taken"]
    found = accuracy(answers_WT, actions_WT, int(max(answers_WT.max(), actions_WT.max())) + 1)
    right_W = (answers_WT == actions_WT).double().mean(1)
    return {
        "recognised": found.overall,
        "recognised_interval": episode_interval(lambda share_S: share_S, [right_W], tally.episodes),
        "recognised_chance": found.chance,
        "recognised_per_action": found.per_action,
        "curves": {"recognised": found.per_frame},
    }


def _horizon(values: Mapping[str, Tensor], tally: Tally, config: EvaluationConfig) -> dict[str, Any]:
    """PSNR and SSIM in slices of a horizon that reaches beyond the first one, and the drift from first to last."""
    found = {}
    for first, last in SLICES:
        taken = slice(first - 1, min(last, config.predicted_frames))
        if first <= config.predicted_frames:
            scores = {"psnr": float(psnr(values["errors"][:, taken].mean()))}
            found[f"{first}-{taken.stop}"] = scores | {"ssim": float(values["ssim"][:, taken].mean())}
    if len(found) < 2:
        return {}
    each = [scores["psnr"] for scores in found.values()]
    return {"slices": found, "drift": each[-1] - each[0]}


def _networks(values: Mapping[str, Tensor], tally: Tally, config: EvaluationConfig) -> dict[str, Any]:
    """What the user's networks say: mean LPIPS, FID with its number of frames, FVD with its number of windows."""
    scores: dict[str, Any] = {"fid": None}
    if "lpips" in values:
        scores["lpips"] = float(values["lpips"].mean()) if values["lpips"].isfinite().all() else None
    for name, distance in tally.distances.items():
        scores |= {name: distance.value(), {"fid": "fid_frames", "fvd": "fvd_windows"}[name]: distance.count}
    return scores


def _probes(values: Mapping[str, Tensor], tally: Tally, config: EvaluationConfig) -> dict[str, Any]:
    probe = tally.samples.probe()
    return {f"probe_{name}": value for name, value in asdict(probe).items()} if probe else {}


def _rare(values: Mapping[str, Tensor], tally: Tally, config: EvaluationConfig) -> dict[str, Any]:
    """With training data to compare with: the share of windows seen there, PSNR of the frames in the rarest cells."""
    if "seen" not in values:
        return {}
    rare_N = values["errors"][values["rare"]]
    return {
        "seen_share": float(values["seen"].double().mean()),
        "psnr_rare": float(psnr(rare_N.mean())) if len(rare_N) else None,
        "rare_frames": len(rare_N),
    }


def episode_interval(
    statistic: Callable[..., Tensor], values: Sequence[ArrayLike | Tensor], episodes: Sequence[str], *, seed: int = 0
) -> Interval | None:
    """95 % interval of a statistic of means over windows; None if all are of one episode.

    A bootstrap over whole episodes: the windows of one episode resemble each other, so they are drawn together. Several
    values of a window are drawn together too: what they are compared in is paired.

    Args:
        statistic: from the mean of each of `values`, [S] each, to [S].
        values: numbers of each window, [W] each.
        episodes: the episode of each window.
    """
    names, group_W = np.unique(np.asarray(episodes), return_inverse=True)
    if len(names) < 2:
        return None
    picks_SE = np.random.default_rng(seed).integers(len(names), size=(BOOTSTRAP_SAMPLES, len(names)))
    windows_S = np.bincount(group_W)[picks_SE].sum(1)
    sums = (np.bincount(group_W, weights=np.asarray(value))[picks_SE].sum(1) for value in values)
    found_S = statistic(*(torch.from_numpy(sum_S / windows_S) for sum_S in sums))
    low, high = np.quantile(found_S.numpy(), [0.025, 0.975])
    return [float(low), float(high)]


def psnr_interval(errors: ArrayLike | Tensor, episodes: Sequence[str]) -> Interval | None:
    """95 % interval of pooled PSNR (dB) from the mean squared error of each window: see `episode_interval`."""
    return episode_interval(psnr, [errors], episodes)


def psnr_gain_interval(
    errors: ArrayLike | Tensor, baseline_errors: ArrayLike | Tensor, episodes: Sequence[str]
) -> Interval | None:
    """95 % interval of the gain in pooled PSNR (dB) over a baseline on the same windows: see `episode_interval`.

    Args:
        errors, baseline_errors: mean squared error of each window under the two models.
        episodes: the episode of each window.
    """
    return episode_interval(lambda ours, theirs: psnr(ours) - psnr(theirs), [errors, baseline_errors], episodes)
