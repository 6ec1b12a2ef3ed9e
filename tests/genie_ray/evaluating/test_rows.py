"""Rows of the table, scored in this process on a tiny world: what they hold and what they do not depend on."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_networks import FirstAndLast, MeanColour, MeanDifference, saved

from genie_ray.base.session import RayConfig
from genie_ray.evaluating import evaluation
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.evaluation import gpus_for, score
from genie_ray.evaluating.networks import FrechetDistance, Networks
from genie_ray.evaluating.predictors import COPY, TOKENIZER, ModelPredictor, TokenizerAlone, infer_actions
from genie_ray.evaluating.scores import Tally, row
from genie_ray.evaluating.windows import read_batches, window_starts
from genie_ray.replay.dataset import ReplayDataset
from tests.genie_ray.tiny_world import FRAMES, GAMES, guided_model, tiny_dataset, unguided_model
from world_model import checkpoint
from world_model.maskgit import DecodingConfig
from world_model.rollout import Rollout

ONE_BY_ONE = DecodingConfig(steps=2, mode="autoregressive", frames_per_step=1)
HOT = DecodingConfig(steps=2, temperature=100.0)  # random weights, but logits too large for less noise to matter
CONFIG = EvaluationConfig(predicted_frames=4, stride=4, batch_size=3, film_strips=1, decoding=HOT, precision="fp32")
LONG = dataclasses.replace(CONFIG, predicted_frames=14, decoding=ONE_BY_ONE)


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def replay(tmp_path: Path) -> ReplayDataset:
    return tiny_dataset(tmp_path / "data", [16, 24, 17])


@pytest.fixture
def model(tmp_path: Path) -> Path:
    checkpoint.save(guided_model(), tmp_path / "model", provenance={})
    return tmp_path / "model"


def scores(checkpoint: Path | None, replay: ReplayDataset, config: EvaluationConfig, **more: Any) -> dict[str, Any]:
    label = COPY if checkpoint is None else "model"
    return score(label, checkpoint, replay.root, config, RayConfig(threads_per_worker=1), **more).scores


def frames_of_game(replay: ReplayDataset, config: EvaluationConfig, game: str) -> torch.Tensor:
    (windows,) = read_batches(
        replay, window_starts(replay, game, config), dataclasses.replace(config, batch_size=1_000)
    )
    return windows.frames_BTHWC


def test_nothing_depends_on_the_batch_size(replay: ReplayDataset, model: Path) -> None:
    """Tokens are sampled and random actions drawn for each window alone."""
    ours, theirs = (scores(model, replay, dataclasses.replace(CONFIG, batch_size=size)) for size in (3, 5))
    for game in (*GAMES, "all"):
        for key in ("psnr", "psnr_mean", "ssim", "delta_psnr", "delta_psnr_mean"):
            assert ours[game][key] == pytest.approx(theirs[game][key], abs=1e-9)
        assert ours[game]["delta_psnr"] != 0
    other = scores(model, replay, dataclasses.replace(CONFIG, seed=1))
    assert other["all"]["psnr"] != ours["all"]["psnr"]


def test_of_random_actions_only_the_error_is_computed(
    replay: ReplayDataset, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ssim = evaluation.frame_ssim
    monkeypatch.setattr(evaluation, "frame_ssim", lambda *frames: asked.append(len(frames[0])) or ssim(*frames))
    assert scores(model, replay, CONFIG)["all"]["windows"] == sum(asked) == 12


def test_each_network_scores_every_game_and_all(replay: ReplayDataset, tmp_path: Path) -> None:
    """Copying a frame, by hand; features are asked for once a batch of the truth and once of the prediction."""
    config = dataclasses.replace(
        CONFIG,
        inception_weights=saved(MeanColour(), tmp_path / "inception.pt"),
        lpips_weights=saved(MeanDifference(), tmp_path / "lpips.pt"),
        video_features=saved(FirstAndLast(), tmp_path / "video.pt"),
    )
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        features = Networks.features
        patch.setattr(Networks, "features", lambda self, frames: asked.append(len(frames)) or features(self, frames))
        rows = scores(None, replay, config)
    assert sum(asked) == 2 * rows["all"]["windows"] == 24
    networks = Networks(config, (16, 16), "cpu")
    every = {name: FrechetDistance() for name in ("fid", "fvd")}
    for game in GAMES:
        frames = frames_of_game(replay, config, game)
        true, copied = frames[:, 2:], frames[:, 1:2].expand(-1, 4, -1, -1, -1)
        for name, total in every.items():
            one = FrechetDistance()
            one.add(*(networks.features(shown)[name].flatten(0, 1) for shown in (copied, true)))
            assert rows[game][name] == pytest.approx(one.value(), rel=1e-5, abs=1e-5)
            total.merge(one)
        assert (rows[game]["fid_frames"], rows[game]["fvd_windows"]) == (4 * len(frames), len(frames))
        difference = (true.double() - copied.double()).abs().mean() / 127.5
        assert rows[game]["lpips"] == pytest.approx(float(difference), rel=1e-5)
    for name, total in every.items():
        assert rows["all"][name] == pytest.approx(total.value(), rel=1e-5, abs=1e-5)


def test_without_an_inception_network_fid_is_null(replay: ReplayDataset) -> None:
    row = scores(None, replay, CONFIG)["all"]
    assert row["fid"] is None
    assert not {"lpips", "fvd", "fid_frames"} & set(row)


def test_scores_without_the_windows_that_training_shows(replay: ReplayDataset, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, inception_weights=saved(MeanColour(), tmp_path / "inception.pt"))
    sizes = {game: len(window_starts(replay, game, config)) for game in GAMES}
    first_only = torch.tensor([True, False, False, False])
    facts = {
        GAMES[0]: {"seen": torch.ones(sizes[GAMES[0]]).bool(), "rare": torch.zeros(sizes[GAMES[0]], 4).bool()},
        GAMES[1]: {"seen": torch.arange(sizes[GAMES[1]]) < 3, "rare": first_only.expand(9, -1)},
    }
    rows = scores(None, replay, config, facts=facts)
    first, second = (rows[game] for game in GAMES)
    assert (first["seen_share"], first["unseen"], first["psnr_rare"]) == (1.0, None, None)
    frames = frames_of_game(replay, config, GAMES[1])
    error = (frames[3:, 2:].double() - frames[3:, 1:2]).div(255).square().mean()
    assert second["unseen"]["psnr"] == pytest.approx(-10 * np.log10(float(error)), abs=1e-4)
    assert second["unseen"]["fid_frames"] == 4 * 6
    assert second["unseen"]["fid"] != second["fid"]
    error = (frames[:, 2].double() - frames[:, 1]).div(255).square().mean()  # the first predicted frame alone is rare
    assert second["psnr_rare"] == pytest.approx(-10 * np.log10(float(error)), abs=1e-4)
    assert rows["all"]["seen_share"] == pytest.approx(6 / 12)
    assert rows["all"]["unseen"]["psnr"] == second["unseen"]["psnr"]


def test_scores_where_other_play_never_was(replay: ReplayDataset) -> None:
    sizes = {game: len(window_starts(replay, game, CONFIG)) for game in GAMES}
    facts = {
        GAMES[0]: {"unreached": torch.zeros(sizes[GAMES[0]]).bool()},
        GAMES[1]: {"unreached": torch.arange(sizes[GAMES[1]]) >= 3},
    }
    rows = scores(None, replay, CONFIG, facts=facts)
    first, second = (rows[game] for game in GAMES)
    assert first["unreached"] is None
    assert "unseen" not in first
    frames = frames_of_game(replay, CONFIG, GAMES[1])
    error = (frames[3:, 2:].double() - frames[3:, 1:2]).div(255).square().mean()
    assert second["unreached"]["windows"] == sizes[GAMES[1]] - 3
    assert second["unreached"]["psnr"] == pytest.approx(-10 * np.log10(float(error)), abs=1e-4)
    assert rows["all"]["unreached"]["psnr"] == second["unreached"]["psnr"]


def test_beyond_a_clip_a_model_plays_on(replay: ReplayDataset, model: Path) -> None:
    """As `Rollout` does, which is exact within a clip; the tokenizer alone sees clips that overlap by half."""
    (windows,) = read_batches(replay, window_starts(replay, GAMES[0], LONG), LONG)
    loaded = guided_model()
    predictor = ModelPredictor(2, loaded, dataclasses.replace(ONE_BY_ONE, temperature=0), "fp32")
    frames_BTHWC, actions_BT = windows.frames_BTHWC, windows.actions_BT
    predicted = predictor.predict(frames_BTHWC, actions_BT, [0])
    rollout = Rollout(loaded, frames_BTHWC[:, :2], actions_BT[:, :1], decoding=predictor.decoding)
    assert torch.equal(predicted, torch.stack([rollout.step(a_B).frames_BHWC for a_B in actions_BT[:, 1:].T], dim=1))
    short = predictor.predict(frames_BTHWC[:, :FRAMES], actions_BT[:, : FRAMES - 1], [0])
    assert torch.equal(short, predicted[:, : FRAMES - 2])
    alone = TokenizerAlone(2, loaded).predict(frames_BTHWC, actions_BT, [0])
    assert alone.shape == predicted.shape
    tokenizer = loaded.tokenizer
    clips = [tokenizer.decode(tokenizer.encode(frames_BTHWC[:, start : start + FRAMES])) for start in (0, 3, 6, 9, 10)]
    assert torch.equal(alone, torch.cat([clips[0][:, 2:], *[c[:, 3:] for c in clips[1:4]], clips[4][:, 5:]], dim=1))

    rows = scores(model, replay, LONG)
    assert list(rows["all"]["slices"]) == ["1-10", "11-14"]
    curve = np.array(rows[GAMES[0]]["curves"]["psnr"])
    pooled = [-10 * np.log10((10 ** (-part / 10)).mean()) for part in (curve[:10], curve[10:])]
    assert rows[GAMES[0]]["slices"]["11-14"]["psnr"] == pytest.approx(pooled[1])
    assert rows[GAMES[0]]["drift"] == pytest.approx(pooled[1] - pooled[0])
    assert list(scores(None, replay, LONG)["all"]["slices"]) == ["1-10", "11-14"]


def test_latent_actions_of_a_long_window_are_inferred_clip_by_clip(replay: ReplayDataset) -> None:
    frames_BTHWC = frames_of_game(replay, LONG, GAMES[0])
    model = unguided_model()
    guidance = infer_actions(model, frames_BTHWC)
    assert guidance.actions_BT.shape == (1, 15)
    for start in (0, 5, 10):
        clip = model.latent_actions.encode(frames_BTHWC[:, start : start + FRAMES])
        assert torch.equal(guidance.actions_BT[:, start : start + 5], clip)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"decoding": DecodingConfig()}, r"is 16: must be at most 6, the clip of model, unless .* is autoregressive"),
        ({"decoding": DecodingConfig(mode="autoregressive")}, r"evaluation\.decoding\.frames_per_step is 1"),
        ({"prime_frames": 6}, "prime_frames is 6: must be at most 5, as model has clips of 6 frames"),
    ],
)
def test_a_horizon_that_cannot_be_decoded_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        dataclasses.replace(LONG, **changes).require_horizon(FRAMES, "model")
    LONG.require_horizon(FRAMES, "model")


def test_the_tokenizer_alone_has_a_row(replay: ReplayDataset, model: Path) -> None:
    row = score(TOKENIZER, model, replay.root, LONG, RayConfig(threads_per_worker=1)).scores["all"]
    assert row["delta_psnr"] is None
    assert row["psnr_interval"][0] < row["psnr"] < row["psnr_interval"][1]


def test_copying_a_frame_takes_no_gpu() -> None:
    gpu = RayConfig(use_gpu=True)
    assert gpus_for(None, CONFIG, gpu) == 0
    assert gpus_for(Path("model"), CONFIG, gpu) == 1
    assert gpus_for(None, dataclasses.replace(CONFIG, inception_weights="inception.pt"), gpu) == 1
    assert gpus_for(Path("model"), CONFIG, RayConfig()) == 0


def test_control_by_hand() -> None:
    """Three windows of two frames: ΔPSNR where the emulator shows a difference, likelihoods, recognised actions."""
    config = EvaluationConfig(predicted_frames=2, delta_psnr_frame=2)
    tally = Tally()
    values = {
        "errors": torch.tensor([[0.1, 0.01], [0.1, 0.01], [0.1, 0.1]]).double(),
        "random_errors": torch.tensor([[0.1, 0.1], [0.1, 0.01], [0.1, 0.1]]).double(),
        "ssim": torch.ones(3, 2).double(),
        "nll": torch.tensor([[1.0, 4.0, 3.0], [6.0, 2.0, 4.0], [0.0, 0.0, 0.0]]),
        "changed": torch.tensor([2, 3, 0]),
        "last_action": torch.tensor([0, 2, 1]),
        "recognised": torch.tensor([[0, 1], [2, 2], [1, 1]]),
        "taken": torch.tensor([[0, 1], [0, 2], [0, 0]]),
    }
    tally.add(["a", "a"], {name: value[:2] for name, value in values.items()})
    tally.add(["b"], {name: value[2:] for name, value in values.items()})
    tally.note("controllable", torch.tensor([True, True, False]))
    scores = row(tally, config)
    assert scores["delta_psnr"] == pytest.approx(10 * np.log10(0.21 / 0.12))
    assert scores["delta_psnr_mean"] == pytest.approx(10 / 3)
    assert scores["controllable"]["windows"] == 2
    assert scores["controllable"]["delta_psnr"] == pytest.approx(10 * np.log10(0.11 / 0.02))
    assert scores["controllable"]["delta_psnr_mean"] == pytest.approx(5)
    assert scores["controllable"]["delta_psnr_interval"] is None  # one episode
    assert (scores["nll_changed"], scores["nll_gap"]) == pytest.approx((5 / 5, 2.5 / 5))  # as in test_control.py
    assert (scores["action_accuracy"], scores["action_chance"]) == pytest.approx((0.5, 1 / 3))
    assert scores["recognised"] == pytest.approx(3 / 6)
    assert scores["recognised_chance"] == pytest.approx(4 / 6)
    assert scores["recognised_per_action"] == [0.25, 1.0, 1.0]
    assert scores["curves"]["recognised"] == pytest.approx([1 / 3, 2 / 3])

    part = Tally()
    part.add(["c"], {name: value[:1] for name, value in values.items()})
    tally.merge(part)  # a game without a ceiling: over all games there is none
    assert "controllable" not in row(tally, config)
