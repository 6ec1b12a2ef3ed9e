"""Evaluation on a real dataset and model: everything compared is treated the same way."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_world import guided_model

from genie_ray.base.session import RayConfig
from genie_ray.evaluating import evaluation
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.evaluation import evaluate, evenly_spaced, random_actions
from genie_ray.evaluating.predictors import COPY, TOKENIZER, is_reference, load_predictor, tokenizer_rows
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.report.page import columns, score_rows
from world_model import checkpoint
from world_model.genie import GenieRedux, GenieReduxG
from world_model.maskgit import DecodingConfig

CONFIG = EvaluationConfig(windows_per_game=6, batch_size=4, film_strips=2, decoding=DecodingConfig(steps=3))


def test_each_different_tokenizer_has_a_row(tmp_path: Path) -> None:
    """Told by all its weights: models that share one share its row, a tuned decoder has its own."""
    base = guided_model()
    checkpoint.save(base, tmp_path / "base", provenance={})
    checkpoint.save(base, tmp_path / "same", provenance={})
    tuned = base.tokenizer.for_decoder_tuning()
    torch.nn.init.normal_(tuned.pixel_head.next_frames.weight)
    checkpoint.save(checkpoint.with_tokenizer(base, tuned.eval()), tmp_path / "tuned", provenance={})
    rows = tokenizer_rows({name: tmp_path / name for name in ("base", "same", "tuned")})
    assert rows == {TOKENIZER: tmp_path / "base", f"{TOKENIZER}: tuned": tmp_path / "tuned"}
    assert [is_reference(label) for label in (COPY, *rows, "tuned")] == [True, True, True, False]
    frames_BTHWC = torch.randint(0, 256, (2, 6, 16, 16, 3), dtype=torch.uint8)
    pictures = [
        load_predictor(label, path, CONFIG).predict(frames_BTHWC, frames_BTHWC, 0) for label, path in rows.items()
    ]
    assert not torch.equal(*pictures)


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

    # The copy baseline computed by hand from the same windows.
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

    # ΔPSNR decodes both rollouts the same way: with true actions in place of random ones it is exactly zero.
    monkeypatch.setattr(evaluation, "random_actions", lambda actions_BT, *_: actions_BT)
    row = evaluation.score("model", world_model, replay.root, CONFIG, RayConfig()).scores[game]
    assert row["curves"]["delta_psnr"] == [0.0] * 10


def test_a_genie_redux_is_given_what_it_infers_and_probed(
    replay: ReplayDataset, genie_redux: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (game,) = {episode.game for episode in replay.episodes}
    frames_BTHWC, actions_BT = evaluation.read_windows(replay, evaluation.window_starts(replay, game, CONFIG), CONFIG)
    model = checkpoint.load_as(GenieRedux, genie_redux)
    codes_BT = model.latent_actions.encode(frames_BTHWC)
    predictor = load_predictor("redux", genie_redux, CONFIG)
    assert torch.equal(predictor.guidance(frames_BTHWC, actions_BT).actions_BT, codes_BT)

    drawn: list[torch.Tensor] = []

    def keep(actions_BT: torch.Tensor, num_actions: int, *arguments: object) -> torch.Tensor:
        assert num_actions == 7
        drawn.append(actions_BT)
        return actions_BT

    monkeypatch.setattr(evaluation, "random_actions", keep)
    rows = evaluation.score("redux", genie_redux, replay.root, CONFIG, RayConfig()).scores
    assert torch.equal(torch.cat(drawn), codes_BT)
    assert rows[game]["curves"]["delta_psnr"] == [0.0] * 10  # decoded the same way: no difference where nothing differs
    assert rows[game]["probe_chance"] == pytest.approx(
        float(actions_BT.flatten().bincount().max()) / actions_BT.numel()
    )
    assert 0 <= rows[game]["probe_codes"] <= 1
    assert rows["all"]["probe_vectors"] == rows[game]["probe_vectors"]  # there is one game


def test_probes_have_columns_where_a_genie_redux_was_scored_and_papers_have_rows() -> None:
    row = {"psnr": 30.0, "psnr_mean": 31.0, "ssim": 0.5, "delta_psnr": 1.0, "fid": None}
    probed = {**row, "probe_codes": 0.5, "probe_vectors": 0.6, "probe_chance": 0.25}
    paper = {"label": "paper", "psnr_mean": 33.41, "ssim": None, "delta_psnr": None, "fid": 18.88}
    document = {"models": {"guided": {"game": row, "all": row}}, "published": [paper]}
    assert list(columns(document)) == ["psnr", "psnr_mean", "ssim", "delta_psnr", "fid"]
    document["models"]["unguided"] = {"game": probed, "all": probed}
    guided, unguided, published = score_rows(document, "game")
    assert list(unguided.values()) == ["unguided", "30.00", "31.00", "0.500", "1.00", "0.50", "0.60", "0.25", "–"]
    assert guided["probe_codes"] == "–"
    assert (published["label"], published["psnr_mean"], published["fid"]) == ("paper", "33.41", "18.88")


def test_what_cannot_be_scored_is_refused(replay: ReplayDataset, genie_redux: Path, tmp_path: Path) -> None:
    checkpoint.save(checkpoint.load_as(GenieRedux, genie_redux).tokenizer, tmp_path / "tokenizer", provenance={})
    long = dataclasses.replace(CONFIG, predicted_frames=15)
    papers = dataclasses.replace(CONFIG, published_figures="absent.csv")
    for model, config, told in (
        (tmp_path / "tokenizer", CONFIG, "holds Tokenizer, needed: GenieReduxG or GenieRedux"),
        (genie_redux, long, r"prime_frames \+ predicted_frames = 17: .* takes at most 16 frames"),
        (genie_redux, papers, r"published_figures = 'absent\.csv': no such file"),
    ):
        with pytest.raises(ValueError, match=told):
            evaluate({"model": model}, replay.root, tmp_path / "out", config, RayConfig())


def test_a_test_set_without_a_window_is_refused(replay: ReplayDataset) -> None:
    long = dataclasses.replace(CONFIG, predicted_frames=200)
    with pytest.raises(
        ValueError, match="no window of 202 frames of Kangaroo-Atari2600-v0, its longest episode has 101"
    ):
        evaluation.window_starts(replay, "Kangaroo-Atari2600-v0", long)
