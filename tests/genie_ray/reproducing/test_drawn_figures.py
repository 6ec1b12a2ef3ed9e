"""The papers' pictures: what they say is counted by hand here, and they are drawn from a real model and dataset."""

import json
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.reproducing.pictures import (
    DRAWERS,
    draw_horizon,
    draw_tokens,
    in_colour,
    replacements,
    reward_at,
    static_tokens,
    windows_of,
)
from genie_ray.reproducing.plan import read_plan
from genie_ray.reproducing.run import reproduce
from genie_ray.reproducing.stages import MADE_FILE, directory_of, make
from world_model.checkpoint import WorldModel, load_as
from world_model.genie import GenieReduxG
from world_model.maskgit import DecodingConfig

CONFIG = EvaluationConfig(windows_per_game=3, decoding=DecodingConfig(steps=2, mode="autoregressive"))


def test_the_static_token_is_the_commonest_where_nothing_changed() -> None:
    """Two frames of 4×4 pixels, four patches: the last one changes."""
    frames = torch.zeros((1, 2, 4, 4, 3), dtype=torch.uint8)
    frames[0, 1, 3, 2, 1] = 1
    tokens = torch.tensor([[[[1, 1], [1, 1]], [[7, 7], [5, 5]]]])
    found = static_tokens(tokens, frames, patch=2)
    assert found == {"token": 7, "unchanged": 0.75, "share_of_unchanged": pytest.approx(2 / 3), "share_of_changed": 0.0}
    still = static_tokens(tokens, torch.zeros_like(frames), patch=2)
    assert still == {"token": 5, "unchanged": 1.0, "share_of_unchanged": 0.5}  # of two alike, the lower number


def test_a_token_is_replaced_by_its_nearest_or_furthest_other() -> None:
    nearest, furthest = replacements(torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0]]))
    assert nearest.tolist() == [1, 0, 1]
    assert furthest.tolist() == [2, 2, 0]


def test_each_token_has_its_colour(world_model: Path) -> None:
    tokenizer = load_as(WorldModel, world_model).tokenizer
    picture = in_colour(torch.tensor([[[3, 3], [900, 4]]]), 4, tokenizer)
    patch = tokenizer.config.patch_size
    assert picture.shape == (1, 2 * patch, 2 * patch, 3)
    assert (picture[0, 0] == picture[0, 0, 0]).all()
    assert not (picture[0, patch, 0] == picture[0, 0, 0]).all()
    assert (picture[0, patch:, patch:] == 0).all()


@pytest.mark.parametrize("kind", DRAWERS)
def test_pictures_are_drawn(kind: str, replay: ReplayDataset, world_model: Path, tmp_path: Path) -> None:
    draw, file = DRAWERS[kind]
    draw(tmp_path, world_model, Path(str(replay.root)), CONFIG)
    picture = imageio.imread(tmp_path / file)
    assert min(picture.shape[:2]) > 100
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 50


def test_the_token_study_counts_what_the_tokenizer_says(
    replay: ReplayDataset, world_model: Path, tmp_path: Path
) -> None:
    draw_tokens(tmp_path, world_model, Path(str(replay.root)), CONFIG)
    found = json.loads((tmp_path / "tokens.json").read_text())
    frames = windows_of(replay, CONFIG)
    tokenizer = load_as(WorldModel, world_model).tokenizer
    tokens, patch = tokenizer.encode(frames), tokenizer.config.patch_size
    counts: dict[int, int] = {}
    for clip, codes in zip(frames, tokens, strict=True):
        for at in range(1, len(clip)):
            for y, x in np.ndindex(*codes.shape[1:]):
                block = (slice(y * patch, (y + 1) * patch), slice(x * patch, (x + 1) * patch))
                if (clip[at][block] == clip[at - 1][block]).all():
                    counts[int(codes[at, y, x])] = counts.get(int(codes[at, y, x]), 0) + 1
    assert counts[found["token"]] == max(counts.values())
    assert found["share_of_unchanged"] == pytest.approx(max(counts.values()) / sum(counts.values()))


def test_the_horizon_is_predicted_from_1_2_and_4_frames(
    replay: ReplayDataset, world_model: Path, tmp_path: Path
) -> None:
    draw_horizon(tmp_path, world_model, Path(str(replay.root)), CONFIG)
    found = json.loads((tmp_path / "horizon.json").read_text())
    assert list(found) == ["1", "2", "4"]
    for row in found.values():
        assert row["windows"] == 3
        assert [len(row["curves"][key]) for key in ("psnr_mean", "delta_psnr_mean")] == [10, 10]
        assert np.mean(row["curves"]["psnr_mean"]) == pytest.approx(row["psnr_mean"])
    longer = replace(CONFIG, predicted_frames=13)  # with 4 given frames one more than its clip has
    with pytest.raises(ValueError, match="prime_frames \\+ predicted_frames is 17: must be at most 16"):
        draw_horizon(tmp_path, world_model, Path(str(replay.root)), longer)


def test_an_explorers_reward_is_that_of_the_frame(replay: ReplayDataset, world_model: Path) -> None:
    """Two given frames, three predicted: of step 9 these are frames 5 and 6, and actions 5 to 8."""
    model = load_as(GenieReduxG, world_model)
    frames, actions = replay.read_frames_and_actions(replay.episodes[0])
    assert reward_at(model, frames, actions, 3) == "–"
    clip, between = torch.tensor(frames[None, 5:7]), torch.tensor(actions[None, 5:9], dtype=torch.int64)
    tokens = sorted(model.uncertainty(clip, between)[0].tolist())
    assert reward_at(model, frames, actions, 9) == f"{np.mean(tokens[-len(tokens) // 4 :]):.2f}"


@pytest.mark.slow
def test_a_figure_is_made_and_shown(roms: list[str], replay: ReplayDataset, world_model: Path, tmp_path: Path) -> None:
    """Of jobs that are there already: its model and its test play."""
    plan = read_plan("fig5", "tiny", games={name: ["Kangaroo-Atari2600-v0"] for name in ("all", "many", "few")})
    (picture,) = plan.pictures
    for role, place, target in (("model", "result/best", world_model), ("test", "result", Path(str(replay.root)))):
        directory = directory_of(picture.job.inputs[role], tmp_path)
        (directory / place).parent.mkdir(parents=True)
        (directory / place).symlink_to(target)
        (directory / MADE_FILE).write_text("{}")
    table = reproduce(plan, tmp_path)
    (line,) = [line for line in table.read_text().splitlines() if line.startswith("![")]
    assert (table.parent / line.partition("(")[2].rstrip(")")).is_file()
    make(picture.job, tmp_path)  # makes nothing: it is there
    assert "seeds 0" in table.read_text()
