"""Evaluation on a real dataset and model: what is compared is compared alike."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from genie_ray import evaluation
from genie_ray.evaluation import COPY, TOKENIZER, EvaluationConfig, evaluate, evenly_spaced, random_actions
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.session import RayConfig
from world_model import checkpoint
from world_model.genie import GenieReduxG
from world_model.maskgit import DecodingConfig

CONFIG = EvaluationConfig(windows_per_game=6, batch_size=4, film_strips=2, decoding=DecodingConfig(steps=3))


def test_windows_are_spread_evenly_and_never_twice() -> None:
    assert evenly_spaced(10, 4) == [0, 3, 6, 9]
    assert evenly_spaced(3, 10) == [0, 1, 2]


def test_random_actions_replace_all_or_only_the_one_that_leads_to_the_frame() -> None:
    actions_BT = torch.zeros(64, 11, dtype=torch.int64)
    every = random_actions(actions_BT, 5, CONFIG, seed=1)
    assert torch.equal(every, random_actions(actions_BT, 5, CONFIG, seed=1))
    assert set(every.unique().tolist()) == {0, 1, 2, 3, 4}
    last = random_actions(actions_BT, 5, dataclasses.replace(CONFIG, random_actions="last"), seed=1)
    # 2 given frames (0 and 1); predicted frame 4 is frame 5 of the window, and action 4 leads to it
    assert torch.all(last[:, 4] != 0)
    assert torch.all(last[:, [0, 1, 2, 3, 5, 6, 7, 8, 9, 10]] == 0)


@pytest.mark.slow
def test_scores_of_a_real_model(
    replay: ReplayDataset, world_model: Path, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = evaluate({"model": world_model}, replay.root, tmp_path, CONFIG, RayConfig())
    assert json.loads((tmp_path / "evaluation.json").read_text())["models"] == document["models"]
    (game,) = (name for name in document["models"][COPY] if name != "all")

    # The copy baseline worked out by hand from the same windows.
    starts = evaluation.window_starts(replay, game, CONFIG)
    frames_BTHWC, _ = evaluation.read_windows(replay, starts, CONFIG)
    frames = frames_BTHWC.double() / 255
    error = float((frames[:, 2:] - frames[:, 1:2]).square().mean())
    assert document["models"][COPY][game]["psnr"] == pytest.approx(-10 * np.log10(error))
    assert document["models"][COPY][game]["windows"] == 6
    assert document["models"][COPY][game]["delta_psnr"] is None

    # The tokenizer alone sees the whole clip.
    model = checkpoint.load(world_model)
    assert isinstance(model, GenieReduxG)
    decoded = model.tokenizer.decode(model.tokenizer.encode(frames_BTHWC)).double() / 255
    error = float((frames[:, 2:] - decoded[:, 2:]).square().mean())
    assert document["models"][TOKENIZER][game]["psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-4)
    with np.load(tmp_path / "film_strips.npz") as strips:
        assert strips[f"truth/{game}"].shape == (2, 12, 64, 64, 3)
        assert strips[f"model/{game}"].shape == (2, 10, 64, 64, 3)

    # ΔPSNR decodes both rollouts alike: with the true actions in place of the random ones it is exactly zero.
    monkeypatch.setattr(evaluation, "random_actions", lambda actions_BT, *_: actions_BT)
    row = evaluation._score("model", world_model, replay.root, CONFIG, RayConfig()).scores[game]
    assert row["curves"]["delta_psnr"] == [0.0] * 10


def test_a_test_set_without_a_window_is_refused(replay: ReplayDataset) -> None:
    long = dataclasses.replace(CONFIG, predicted_frames=200)
    with pytest.raises(
        ValueError, match="no window of 202 frames of Kangaroo-Atari2600-v0, its longest episode has 101"
    ):
        evaluation.window_starts(replay, "Kangaroo-Atari2600-v0", long)
