"""The world models that come along: small, complete, and able to do what their cards say."""

import json
import sys
from pathlib import Path

import pytest
import torch

from genie_ray import cli
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.loading.windows import iter_windows
from genie_ray.web.session import PlaySession
from genie_ray.web.shipped import GAMES, HERO, PLAY, SHIPPED, shipped
from world_model import checkpoint
from world_model.control import action_likelihoods
from world_model.genie import GenieReduxG
from world_model.maskgit import DecodingConfig

GREEDY = DecodingConfig(steps=1, temperature=0.0, mode="autoregressive", frames_per_step=1)


@pytest.mark.parametrize("folder", GAMES.values(), ids=lambda folder: folder.name)
def test_it_is_small_and_has_a_card(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 11 * 2**20
    card = (folder / "model" / "README.md").read_text()
    for what in ("Data", "Recipe", "How good it is", "What it can't do", "Licence"):
        assert f"**{what}" in card


def test_it_predicts_and_obeys_on_levels_that_it_was_not_trained_on() -> None:
    """Six frames from two, as on its card (19.35 dB, copying 10.70; the true action likeliest in 0.35 of windows)."""
    model, play = checkpoint.load_as(GenieReduxG, SHIPPED / "model"), ReplayDataset(SHIPPED / "play")
    batch = next(iter_windows(play, "all", 8, stride=8, batch_size=96, limit=96))
    frames, actions = batch["frames_BTHWC"], batch["actions_BT"][:, :-1]
    with torch.no_grad():
        predicted = model.rollout(frames[:, :2], actions, decoding=GREEDY)

    def psnr(found: torch.Tensor) -> float:
        return float(-10 * ((found.float() - frames[:, 2:].float()) / 255).square().mean().log10())

    assert psnr(predicted) > 17.5
    assert psnr(predicted) > psnr(frames[:, 1:2]) + 5
    control = action_likelihoods(model, frames, actions).control(actions[:, -1])
    assert control["action_accuracy"] > 2 / 7
    PlaySession(model, play, None)  # fits


@pytest.mark.slow
def test_hero_starts_where_the_users_rom_was_played_to_and_obeys(roms: list[str]) -> None:
    """As on its card: 29.31 dB, copying 26.60; the true action likeliest in 0.41 of windows."""
    told = json.loads((HERO / PLAY).read_text())
    with shipped("Hero-Atari2600") as (directory, place):
        model, play = checkpoint.load_as(GenieReduxG, directory), ReplayDataset(place)
        assert [play.read(ref).actions.tolist() for ref in play.episodes] == told["episodes"]
        session = PlaySession(model, play, "Hero-Atari2600")
        try:
            begin = session.start(play.episodes[1].episode_id, 300)
        finally:
            session.close()
        assert begin.game_HWC is not None, begin.without_game  # another emulator shows the same after 300 actions
        assert (begin.game_HWC == begin.model_HWC).all()
        batch = next(iter_windows(play, "all", 8, stride=16, batch_size=96, limit=96))
    assert not Path(place).exists()
    frames, actions = batch["frames_BTHWC"], batch["actions_BT"][:, :-1]
    with torch.no_grad():
        predicted = model.rollout(frames[:, :2], actions, decoding=GREEDY)
    errors = [((found.float() - frames[:, 2:].float()) / 255).square().mean() for found in (predicted, frames[:, 1:2])]
    assert errors[0] < 0.9 * errors[1]
    assert action_likelihoods(model, frames, actions).control(actions[:, -1])["action_accuracy"] > 0.3


def test_no_model_of_another_game_comes_along(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["genie-ray", "play", "--game", "Pong-Atari2600"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "no world model of Pong-Atari2600-v0 comes along, only of CoinRun, Hero" in capsys.readouterr().err
