"""The upscaler in the system: trained on collected pictures, scored against bicubic, shown in the report."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from genie_ray.base.session import RayConfig
from genie_ray.base.settings import build
from genie_ray.config import RunConfig, load_config
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.evaluating.upscaling import evaluate_upscaler, score, upscale_run, upscale_strips
from genie_ray.loop import stages
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.report.upscaling import upscaling_section
from genie_ray.training.config import TrainingConfig
from genie_ray.training.job import TrainingJob
from genie_ray.training.train import train
from world_model import checkpoint
from world_model.upscaler import Upscaler, UpscalerConfig

PRESETS = Path(__file__).parents[3] / "experiments" / "upscaler"
UPSCALER = UpscalerConfig(scale=2, channels=(4, 8), residual=True)
CONFIG = TrainingConfig(
    iterations=60,
    batch_size=8,
    learning_rate=1e-2,
    final_learning_rate=1e-3,
    warmup_iterations=0,
    weight_decay=0.0,
    shuffle_buffer=32,
    log_every=20,
    validate_every=30,
    validation_windows=4,  # one batch: of two workers, one has nothing to validate on
    checkpoint_every=30,
)
EVALUATION = EvaluationConfig(batch_size=7, pictures=20, film_strips=2)


def upscaler_job(pictures: ReplayDataset, output: Path) -> TrainingJob:
    return TrainingJob(kind="upscaler", output=output, dataset=pictures.root, config=CONFIG, model=UPSCALER)


@pytest.fixture(scope="module")
def trained(pictures: ReplayDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An upscaler trained briefly by two workers."""
    output = tmp_path_factory.mktemp("upscaler")
    return train(upscaler_job(pictures, output), RayConfig(train_workers=2, threads_per_worker=1))


@pytest.mark.slow
def test_a_trained_upscaler_beats_bicubic_on_held_out_pictures(trained: Path, pictures: ReplayDataset) -> None:
    description = checkpoint.read_description(trained)
    assert description["provenance"]["dataset"] == pictures.content_hash()
    validation = description["provenance"]["validation"]
    assert validation["loss"] < 0.5 * validation["bicubic_mse"]  # 3 dB
    assert validation["psnr"] == pytest.approx(-10 * np.log10(validation["loss"]), abs=1e-6)
    lines = [json.loads(line) for line in (trained.parent / "metrics.jsonl").read_text().splitlines()]
    rates = [line["frames_per_second"] / line["steps_per_second"] for line in lines if "frames_per_second" in line]
    assert rates == pytest.approx([CONFIG.batch_size] * 3)  # a picture is one frame
    (row,) = [
        row
        for game, row in score(checkpoint.load(trained), pictures, "validation", EVALUATION).items()
        if game != "all"
    ]
    assert row["upscaler"]["psnr"] > row["bicubic"]["psnr"] + 3


@pytest.mark.slow
def test_scores_are_those_of_a_slow_reader(trained: Path, pictures: ReplayDataset, tmp_path: Path) -> None:
    document = evaluate_upscaler(trained, pictures.root, tmp_path, EVALUATION, RayConfig(), split="validation")
    assert json.loads((tmp_path / "upscaling.json").read_text()) == document
    upscaler = checkpoint.load_as(Upscaler, trained)
    every = []
    for ref in pictures.split("validation"):
        episode = pictures.read(ref)
        every += list(zip(episode.frames[::5], episode.large_frames.frames, strict=True))
    errors = []
    for frame, large in [every[i * len(every) // 20] for i in range(20)]:
        upscaled = upscaler.upscale(torch.from_numpy(frame.copy())).numpy()
        errors.append(np.square(upscaled / 255 - large / 255).mean())
    (game,) = [game for game in document["games"] if game != "all"]
    row = document["games"][game]
    assert row == document["games"]["all"]
    assert row["pictures"] == 20
    assert row["upscaler"]["mse"] == pytest.approx(np.mean(errors), rel=1e-3)
    assert row["upscaler"]["psnr"] == pytest.approx(-10 * np.log10(np.mean(errors)), abs=0.01)
    with np.load(tmp_path / "upscaled_pictures.npz") as kept:
        assert kept["bicubic"].shape == kept["upscaler"].shape == kept["true"].shape == (2, 128, 128, 3)
        for small, bicubic in zip(kept["frames"], kept["bicubic"], strict=True):
            ours, opencvs = bicubic.astype(int), cv2.resize(small, (128, 128), interpolation=cv2.INTER_CUBIC)
            assert np.abs(ours - opencvs).max() <= 2  # the same kernel (a = −0.75), in fixed point there


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What an evaluation writes: film strips of two models, two given frames and five predicted ones."""
    rng = np.random.default_rng(0)
    labels = {"copy last frame": 5, "base/model": 5, "truth": 7}
    strips = {f"{label}/Pong": rng.integers(256, size=(2, T, 64, 64, 3), dtype=np.uint8) for label, T in labels.items()}
    (tmp_path / "evaluation").mkdir()
    np.savez_compressed(tmp_path / "evaluation" / "film_strips.npz", **strips)
    (tmp_path / "evaluation" / "evaluation.json").write_text(json.dumps({"protocol": {"prime_frames": 2}}))
    return tmp_path


def test_film_strips_are_enlarged(run: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    upscaler = Upscaler(UPSCALER).eval()
    checkpoint.save(upscaler, tmp_path / "upscaler", provenance={})
    upscale_run(run, tmp_path / "upscaler")
    with (
        np.load(run / "evaluation" / "film_strips.npz") as strips,
        np.load(run / "evaluation" / "upscaled_strips.npz") as large,
    ):
        assert set(large.files) == {"frames", "truth/Pong", "base/model/Pong"}
        assert large["frames"].tolist() == [1, 2, 4, 5]
        for key, given in (("truth/Pong", 2), ("base/model/Pong", 0)):
            expected = upscaler.upscale(torch.from_numpy(strips[key][:, given:][:, [0, 1, 3, 4]]))
            assert np.array_equal(large[key], expected)
    section = upscaling_section(run / "evaluation", ["base/model"])
    assert section is not None
    assert section["strips"]["rows"] == ["truth", "base/model"]
    assert section["strips"]["games"]["Pong"].startswith("data:image/png;base64,")
    assert not section["scores"]


def test_what_cannot_be_enlarged_is_refused(run: Path, tmp_path: Path, world_model: Path) -> None:
    assert upscaling_section(run / "evaluation", ["base/model"]) is None
    with pytest.raises(ValueError, match="holds GenieReduxG, needed: Upscaler"):
        upscale_run(run, world_model)
    with pytest.raises(ValueError, match=r"film_strips\.npz is missing"):
        upscale_run(tmp_path / "elsewhere", world_model)
    with pytest.raises(ValueError, match=r"allowed: \[\.\.\., 32, 32, 3\]"):
        upscale_strips(Upscaler(dataclasses.replace(UPSCALER, frame_size=32)).eval(), run / "evaluation")
    (run / "evaluation" / "upscaling.json").touch()
    with pytest.raises(ValueError, match="has its own upscaler"):
        upscale_run(run, world_model)


def test_what_cannot_be_trained_or_scored_is_refused_before_anything_starts(
    replay: ReplayDataset, pictures: ReplayDataset, tmp_path: Path
) -> None:
    job = upscaler_job(pictures, tmp_path / "out")
    with pytest.raises(ValueError, match=r"has no large frames: collect with collection\.large_frame_every above 0"):
        train(dataclasses.replace(job, dataset=replay.root), RayConfig())
    four = UpscalerConfig(scale=4, channels=(4, 8))
    with pytest.raises(ValueError, match="has large frames of 128 pixels, but the upscaler makes 256"):
        train(dataclasses.replace(job, model=four), RayConfig())
    with pytest.raises(ValueError, match=r"holds frames of \(64, 64, 3\), the model takes \(32, 32, 3\)"):
        train(dataclasses.replace(job, model=dataclasses.replace(four, frame_size=32)), RayConfig())
    with pytest.raises(ValueError, match="large frames: fewer than one batch of 1000 for each of 1 ranks"):
        train(dataclasses.replace(job, config=dataclasses.replace(CONFIG, batch_size=1000)), RayConfig())
    checkpoint.save(Upscaler(four), tmp_path / "four", provenance={})
    with pytest.raises(ValueError, match="has large frames of 128 pixels, but the upscaler makes 256"):
        evaluate_upscaler(tmp_path / "four", pictures.root, tmp_path / "out", EVALUATION, RayConfig(), split="all")
    assert not (tmp_path / "out").exists()


def test_the_loop_has_an_upscaler_where_large_frames_are_collected(tmp_path: Path) -> None:
    without, with_it = (
        [stage.name for stage in stages(build(RunConfig, {"collection": {"large_frame_every": every}}), tmp_path)]
        for every in (0, 10)
    )
    assert with_it == [*without, "upscaler", "upscaling"]


@pytest.mark.parametrize(("name", "channels"), [("small", (64, 128, 256, 512)), ("large", (128, 256, 512, 1024))])
def test_presets_are_the_papers(name: str, channels: tuple[int, ...]) -> None:
    config = load_config(PRESETS / f"{name}.yaml")
    training = config.train_upscaler
    assert (config.upscaler.channels, config.upscaler.large_size, config.upscaler.residual) == (channels, 256, False)
    assert (training.batch_size, training.learning_rate, training.schedule) == (128, 1e-4, "step")
    assert (training.iterations / training.step_iterations, training.step_factor) == (300 / 25, 0.5)
    assert (training.betas, training.weight_decay, training.warmup_iterations) == ((0.9, 0.999), 0, 0)
    assert training.clip_norm == float("inf")
    assert config.collection.large_frame_every


def test_sizes_that_do_not_fit_are_refused_with_the_config() -> None:
    assert load_config(PRESETS / "tiny.yaml").upscaler.residual
    with pytest.raises(ValueError, match=r"upscaler.frame_size and scale make 128 pixels of 64, but .* are 64 and 256"):
        load_config(PRESETS / "tiny.yaml", ["upscaler.scale=2"])
    for override, told in {
        "train_upscaler.schedule=linear": "input should be 'cosine' or 'step'",
        "train_upscaler.step_factor=0": r"step_factor = 0\.0: must be in \(0, 1\]",
        "train_upscaler.step_iterations=0": "step_iterations = 0: must be at least 1",
        "evaluation.pictures=0": "pictures = 0: must be at least 1",
    }.items():
        with pytest.raises(ValueError, match=told):
            load_config(PRESETS / "tiny.yaml", [override])
