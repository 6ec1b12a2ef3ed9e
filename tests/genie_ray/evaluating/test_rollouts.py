"""Rollouts to look at: what is played is what was requested, and the scores are those of the frames."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from genie_ray import cli
from genie_ray.base.figures import HEAT, heat_maps
from genie_ray.envs.world_model_games import INTERACTIVE
from genie_ray.evaluating import rollouts
from genie_ray.evaluating.rollouts import RolloutConfig, play
from genie_ray.replay.dataset import ReplayDataset
from tests.genie_ray.tiny_world import FRAMES, GAMES, NAMES, guided_model, tiny_dataset, unguided_model
from world_model import checkpoint
from world_model.genie import GenieRedux, GenieReduxG
from world_model.upscaler import Upscaler, UpscalerConfig

CONFIG = RolloutConfig(game="Kangaroo-Atari2600", start=2, steps=9, precision="fp32")  # longer than a clip


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def dataset(tmp_path: Path) -> ReplayDataset:
    return tiny_dataset(tmp_path / "data", [30, 10, 15])


@pytest.fixture
def model(tmp_path: Path) -> GenieReduxG:
    model = guided_model()
    checkpoint.save(model, tmp_path / "model", provenance={})
    return model


@pytest.fixture
def latent_model(tmp_path: Path) -> GenieRedux:
    model = unguided_model()
    checkpoint.save(model, tmp_path / "model", provenance={})
    return model


def psnr(frame: np.ndarray, truth: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.square(frame.astype(float) - truth).mean()))


def test_recorded_actions_are_measured_against_the_truth(
    model: GenieReduxG, dataset: ReplayDataset, tmp_path: Path
) -> None:
    document = play(tmp_path / "out", tmp_path / "model", dataset.root, CONFIG)
    assert json.loads((tmp_path / "out" / "rollout.json").read_text()) == json.loads(json.dumps(document))

    # Needed are 2 + 2 + 9 frames: the first episode of Kangaroo has 11, the second 16.
    episode = dataset.read(dataset.episodes[2])
    assert (document["config"]["episode"], document["config"]["game"]) == (episode.episode_id, GAMES[1])
    assert document["actions"] == [NAMES[action] for action in episode.actions[3:12]]
    found = document["scores"]
    truth = episode.frames[4:13]
    assert found["psnr_copy"] == pytest.approx([psnr(episode.frames[3], frame) for frame in truth])
    assert found["psnr_copy_pooled"] == pytest.approx(psnr(episode.frames[3], truth))
    # Until the clip is full it is the model's own rollout.
    predicted = model.rollout(
        torch.tensor(episode.frames[None, 2:4]),
        torch.tensor(episode.actions[None, 2 : 2 + FRAMES - 1].astype(np.int64)),
        decoding=INTERACTIVE,
    )[0].numpy()
    assert found["psnr"][:4] == pytest.approx(
        [psnr(ours, true) for ours, true in zip(predicted, truth[:4], strict=True)]
    )
    assert len(found["psnr"]) == len(document["mean_uncertainty"]) == 9
    assert found["psnr_pooled"] == pytest.approx(
        -10 * np.log10(np.mean([10 ** (-value / 10) for value in found["psnr"]]))
    )

    clip = imageio.imread(tmp_path / "out" / "rollout.gif")
    assert len(clip) == 10  # the given one and the predicted
    for left in (8, 8 + 264):  # truth and model both start from the given frame, in 16 × 16 pixels each
        panel = clip[0, 28:284, left : left + 256].reshape(16, 16, 16, 16, 3).astype(int)
        assert np.abs(panel[:, 8, :, 8] - episode.frames[3]).mean() < 20  # the palette of a GIF has 256 colours
    assert imageio.imread(tmp_path / "out" / "film_strip.png").shape[1] > 1_000


def test_chosen_actions_are_repeated_and_random_ones_seeded(
    model: GenieReduxG, dataset: ReplayDataset, tmp_path: Path
) -> None:
    def actions(**changes: Any) -> list[str]:
        document = play(
            tmp_path / "out", tmp_path / "model", dataset.root, dataclasses.replace(CONFIG, start=0, **changes)
        )
        assert document["config"]["episode"] == dataset.episodes[1].episode_id  # its two prime frames are enough
        assert document["scores"] is None
        return document["actions"]

    assert actions(actions="JUMP,LEFT,LEFT", steps=7) == ["JUMP", "LEFT", "LEFT", "JUMP", "LEFT", "LEFT", "JUMP"]
    drawn = actions(actions="random", steps=30)
    assert set(drawn) == set(NAMES)
    assert actions(actions="random", steps=30) == drawn
    assert actions(actions="random", steps=30, seed=1) != drawn


def test_latent_actions_of_a_recording_are_those_that_the_model_sees(
    latent_model: GenieRedux, dataset: ReplayDataset, tmp_path: Path
) -> None:
    document = play(tmp_path / "out", tmp_path / "model", dataset.root, CONFIG)
    frames = torch.tensor(dataset.read(dataset.episodes[2]).frames[None, 2:13])
    # Eleven frames in clips of six: frames 0 to 5, then 5 to 10. The first action lies between the given frames.
    codes = [
        *latent_model.latent_actions.encode(frames[:, :6])[0],
        *latent_model.latent_actions.encode(frames[:, 5:])[0],
    ]
    assert document["actions"] == [str(int(code)) for code in codes[1:]]
    assert len(document["scores"]["psnr"]) == 9
    chosen = play(tmp_path / "out", tmp_path / "model", dataset.root, dataclasses.replace(CONFIG, actions="6,0"))
    assert chosen["actions"][:3] == ["6", "0", "6"]


def test_an_upscaler_enlarges_pictures_and_leaves_scores(
    model: GenieReduxG, dataset: ReplayDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upscaler = Upscaler(UpscalerConfig(frame_size=16, scale=4, channels=(4,), residual=True)).eval()
    checkpoint.save(upscaler, tmp_path / "upscaler", provenance={})
    shown: list[dict[str, np.ndarray]] = []
    labelled_clip = rollouts.labelled_clip
    monkeypatch.setattr(
        rollouts,
        "labelled_clip",
        lambda panels, *args, **more: shown.append(panels) or labelled_clip(panels, *args, **more),
    )
    plain = play(tmp_path / "out", tmp_path / "model", dataset.root, CONFIG)
    large = play(tmp_path / "out", tmp_path / "model", dataset.root, CONFIG, upscaler=tmp_path / "upscaler")
    assert large["scores"] == plain["scores"]
    assert [frames.shape for frames in shown[1].values()] == [(10, 64, 64, 3)] * 3
    for label in ("truth", "world model"):
        np.testing.assert_array_equal(shown[1][label], upscaler.upscale(torch.tensor(shown[0][label])))


def test_heat_maps_span_the_colours() -> None:
    values = np.array([[[0.0, 0.2], [0.4, np.nan]]], np.float32)
    maps = heat_maps(values, 0.4, 4)
    assert maps.shape == (1, 4, 4, 3)
    expected = [[HEAT(0.0), HEAT(0.5)], [HEAT(1.0), (1, 1, 1, 1)]]
    np.testing.assert_allclose(maps[0, ::2, ::2], 255 * np.array(expected)[..., :3], atol=1)
    np.testing.assert_array_equal(maps[0, :2, :2], np.broadcast_to(maps[0, 0, 0], (2, 2, 3)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 13}, "the rollout needs 17 recorded frames: the longest episode has 16"),
        ({"start": 16, "actions": "random"}, "the rollout needs 18 recorded frames: the longest episode has 16"),
        ({"episode": "Kangaroo-Atari2600-v0/random/0/000001"}, "needs 13 recorded frames: episode Kang.* has 11"),
        ({"episode": "Hero-Atari2600-v0/random/0/000000"}, "has no episode 'Hero.*' of Kangaroo-Atari2600"),
        ({"game": "Pong"}, "has no episode of Pong"),
        ({"actions": "JUMP,FIRE"}, "unknown action 'FIRE': allowed are recorded, random, or some of RIGHT, LEFT"),
        ({"prime_frames": 6, "steps": 1}, "prime_frames is 6: the model takes 1 to 5"),
    ],
)
def test_what_cannot_be_played_is_refused(
    model: GenieReduxG, dataset: ReplayDataset, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        play(tmp_path / "out", tmp_path / "model", dataset.root, dataclasses.replace(CONFIG, **changes))
    assert not (tmp_path / "out").exists()


def test_artefacts_that_do_not_fit_are_refused(model: GenieReduxG, dataset: ReplayDataset, tmp_path: Path) -> None:
    checkpoint.save(Upscaler(UpscalerConfig(frame_size=32, scale=2, channels=(4,))), tmp_path / "other", provenance={})
    with pytest.raises(ValueError, match="takes frames of 32 pixels, the world model makes 16"):
        play(tmp_path / "out", tmp_path / "model", dataset.root, CONFIG, upscaler=tmp_path / "other")
    with pytest.raises(ValueError, match="holds Upscaler, needed: GenieReduxG or GenieRedux"):
        play(tmp_path / "out", tmp_path / "other", dataset.root, CONFIG)
    with pytest.raises(ValueError, match=r"holds frames of \(8, 8, 3\), the model takes \(16, 16, 3\)"):
        play(
            tmp_path / "out", tmp_path / "model", tiny_dataset(tmp_path / "small", size=8).root, RolloutConfig(steps=1)
        )


def test_the_command(
    model: GenieReduxG,
    dataset: ReplayDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["rollout", tmp_path / "out", "--world-model", tmp_path / "model", "--data", dataset.root]
    arguments += ["--steps", 3, "--decoding-steps", 2, "--temperature", 1, "--seed", 5, "--actions", "UP"]
    monkeypatch.setattr(sys, "argv", ["genie-ray", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert "frames/s" in capsys.readouterr().out
    config = json.loads((tmp_path / "out" / "rollout.json").read_text())["config"]
    assert (config["steps"], config["seed"], config["actions"]) == (3, 5, "UP")
    assert config["decoding"] | {"steps": 2, "temperature": 1.0} == config["decoding"]
