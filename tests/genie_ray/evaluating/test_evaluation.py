"""Evaluation on a real dataset and model: everything compared is treated the same way."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from genie_ray.base.session import RayConfig
from genie_ray.evaluating import evaluation
from genie_ray.evaluating.config import EvaluationConfig, InverseDynamicsConfig
from genie_ray.evaluating.evaluation import evaluate
from genie_ray.evaluating.predictors import (
    COPY,
    LATENT_ACTIONS,
    TOKENIZER,
    is_reference,
    latent_action_rows,
    load_predictor,
    require_fit,
    tokenizer_rows,
)
from genie_ray.evaluating.windows import Windows, read_batches, window_starts
from genie_ray.replay.dataset import ReplayDataset
from tests.genie_ray.tiny_world import GAMES, guided_model, tiny_dataset
from world_model import checkpoint
from world_model.genie import GenieRedux, GenieReduxG
from world_model.maskgit import DecodingConfig

CONFIG = EvaluationConfig(
    windows_per_game=6,
    batch_size=4,
    film_strips=2,
    decoding=DecodingConfig(steps=3),
    inverse_dynamics=InverseDynamicsConfig(updates=20),
)


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
        load_predictor(label, path, CONFIG).predict(frames_BTHWC, frames_BTHWC, [0, 0]) for label, path in rows.items()
    ]
    assert not torch.equal(*pictures)


def test_a_model_may_have_a_checkpoint_for_each_game(tmp_path: Path) -> None:
    """Each game's scores are those of its own checkpoint; the row of all games is over these."""
    config = dataclasses.replace(CONFIG, predicted_frames=4, ceiling=False)
    replay = tiny_dataset(tmp_path / "play", (20, 20))
    paths = [tmp_path / name for name in ("one", "other")]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        checkpoint.save(guided_model(), path, provenance={})
    rows = [evaluation.score("model", path, replay.root, config, RayConfig()).scores for path in paths]
    apart = evaluation.score("model", dict(zip(GAMES, paths, strict=True)), replay.root, config, RayConfig()).scores
    assert [apart[game]["psnr"] for game in GAMES] == [row[game]["psnr"] for game, row in zip(GAMES, rows, strict=True)]
    assert apart[GAMES[1]]["psnr"] != rows[0][GAMES[1]]["psnr"]
    errors = [10 ** (-apart[game]["psnr"] / 10) for game in GAMES]
    assert apart["all"]["psnr"] == pytest.approx(-10 * np.log10(np.mean(errors)))
    with pytest.raises(ValueError, match=f"tuned has no model of {GAMES[1]}, which the test dataset has"):
        require_fit({"tuned": {GAMES[0]: paths[0]}}, replay.metadata, config)


def all_windows(replay: ReplayDataset) -> Windows:
    """The configured windows of its game, in one batch."""
    (game,) = {episode.game for episode in replay.episodes}
    (windows,) = read_batches(replay, window_starts(replay, game, CONFIG), dataclasses.replace(CONFIG, batch_size=6))
    return windows


@pytest.mark.slow
def test_scores_of_a_real_model(
    replay: ReplayDataset, world_model: Path, ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = evaluate(
        {"model": world_model}, replay.root, tmp_path, CONFIG, RayConfig(), train_data=[str(replay.root)]
    )
    assert json.loads((tmp_path / "evaluation.json").read_text())["models"] == document["models"]
    (game,) = (name for name in document["models"][COPY] if name != "all")

    # The copy baseline computed by hand from the same windows.
    frames_BTHWC = all_windows(replay).frames_BTHWC
    frames = frames_BTHWC.double() / 255
    error = float((frames[:, 2:] - frames[:, 1:2]).square().mean())
    assert document["models"][COPY][game]["psnr"] == pytest.approx(-10 * np.log10(error))
    assert document["models"][COPY][game]["windows"] == 6
    assert document["models"][COPY][game]["delta_psnr"] is None

    # This recording can be replayed, so the emulator says what the best possible ΔPSNR is.
    ceiling, row = (document["models"][label][game] for label in (TOKENIZER, "model"))
    assert "no_ceiling" not in ceiling
    assert ceiling["curves"]["delta_psnr"][0] >= 0
    assert 0 <= row["controllable"]["windows"] <= 6
    assert ceiling["controllable"]["windows"] == row["controllable"]["windows"]
    assert row["action_chance"] == 1 / 5
    assert row["nll_changed"] > 0
    assert 0 <= row["recognised"] <= 1
    assert set(document["inverse_dynamics"]["per_action"]) == set(replay.metadata.action_names)

    # It was trained on its test set, as far as it is told: every window was seen.
    assert document["train_data"] == [document["dataset"]]
    row = document["models"]["model"][game]
    assert (row["seen_share"], row["unseen"]) == (1.0, None)
    assert 0 < row["rare_frames"] <= 60

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
    frames_BTHWC, actions_BT, _ = all_windows(replay)
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


def test_a_latent_action_model_alone_reconstructs_each_frame_from_the_past_and_its_action(
    genie_redux: Path, world_model: Path
) -> None:
    rows = latent_action_rows({"guided": world_model, "redux": genie_redux, "again": genie_redux})
    assert rows == {LATENT_ACTIONS: genie_redux, f"{LATENT_ACTIONS}: again": genie_redux}
    assert all(map(is_reference, rows))
    predictor = load_predictor(LATENT_ACTIONS, genie_redux, CONFIG)
    assert not predictor.num_actions  # so no ΔPSNR: it sees the true frames
    frames_BTHWC = torch.randint(0, 256, (2, 20, 64, 64, 3), dtype=torch.uint8)
    seen_BTHWC = predictor.predict(frames_BTHWC, frames_BTHWC, [0, 0])
    assert seen_BTHWC.shape == (2, 18, 64, 64, 3)
    model = checkpoint.load_as(GenieRedux, genie_redux).latent_actions
    with torch.no_grad():  # frames 0 to 15 are its first clip, 15 to 19 the second
        first_BTHWC, second_BTHWC = (
            model(clip).reconstruction_BTHWC for clip in (frames_BTHWC[:, :16], frames_BTHWC[:, 15:])
        )
    expected_BTHWC = torch.cat([first_BTHWC, second_BTHWC], dim=1)[:, 1:].clamp(0, 1) * 255
    assert (seen_BTHWC - expected_BTHWC).abs().max() <= 0.5 + 1e-3
    frames_BTHWC[:, 10:] = 0
    changed_BTHWC = predictor.predict(frames_BTHWC, frames_BTHWC, [0, 0])
    assert torch.equal(changed_BTHWC[:, :8], seen_BTHWC[:, :8])  # frames 2 to 9 depend on no later frame


def test_what_cannot_be_scored_is_refused(replay: ReplayDataset, genie_redux: Path, tmp_path: Path) -> None:
    checkpoint.save(checkpoint.load_as(GenieRedux, genie_redux).tokenizer, tmp_path / "tokenizer", provenance={})
    long = dataclasses.replace(CONFIG, predicted_frames=15)
    papers = dataclasses.replace(CONFIG, published_figures="absent.csv")
    for model, config, told in (
        (tmp_path / "tokenizer", CONFIG, "holds Tokenizer, needed: GenieReduxG or GenieRedux"),
        (
            genie_redux,
            long,
            r"prime_frames \+ predicted_frames is 17: must be at most 16, the clip of .*, unless .*autoregressive",
        ),
        (genie_redux, papers, r"published_figures = 'absent\.csv': no such file"),
    ):
        with pytest.raises(ValueError, match=told):
            evaluate({"model": model}, replay.root, tmp_path / "out", config, RayConfig())
