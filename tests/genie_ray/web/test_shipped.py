"""The world model that comes along: small, complete, and able to do what its card says."""

import torch

from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.loading.windows import iter_windows
from genie_ray.web.session import PlaySession
from genie_ray.web.shipped import SHIPPED
from world_model import checkpoint
from world_model.control import action_likelihoods
from world_model.genie import GenieReduxG
from world_model.maskgit import DecodingConfig

GREEDY = DecodingConfig(steps=1, temperature=0.0, mode="autoregressive", frames_per_step=1)


def test_it_is_small_and_has_a_card() -> None:
    assert sum(path.stat().st_size for path in (SHIPPED / "model").iterdir()) < 10 * 2**20
    card = (SHIPPED / "model" / "README.md").read_text()
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
