"""Playing a world model frame by frame."""

import pytest
import torch
from tiny_models import ACTIONS, FRAMES, GRID, guided_model, random_clip, unguided_config

from world_model.genie import GenieRedux, GenieReduxG
from world_model.maskgit import DecodingConfig
from world_model.rollout import Rollout

GREEDY = DecodingConfig(steps=3, temperature=0.0, mode="autoregressive", frames_per_step=1)


def lively_model(alignment: str) -> GenieReduxG:
    model = guided_model(alignment=alignment)
    torch.nn.init.normal_(model.dynamics.to_logits.weight, std=3)  # so that a changed action changes tokens
    return model


@pytest.mark.parametrize("alignment", ["shifted", "aligned"])
def test_step_by_step_it_is_the_rollout_of_the_whole_clip(alignment: str) -> None:
    model = lively_model(alignment)
    frames_BTHWC, actions_BT = random_clip(batch=3)
    whole_BTHWC = model.rollout(frames_BTHWC[:, :2], actions_BT, decoding=GREEDY)
    played = Rollout(model, frames_BTHWC[:, :2], actions_BT[:, :1], decoding=GREEDY)
    for index in range(FRAMES - 2):
        step = played.step(actions_BT[:, 1 + index])
        assert torch.equal(step.frames_BHWC, whole_BTHWC[:, index])


def test_a_full_clip_goes_on_from_its_last_frames() -> None:
    model = lively_model("aligned")
    frames_BTHWC, _ = random_clip()
    actions_BT = torch.randint(0, ACTIONS, (2, 12))
    played = Rollout(model, frames_BTHWC[:, :2], actions_BT[:, :1], decoding=GREEDY)
    shown = [*frames_BTHWC[:, :2].unbind(1)] + [played.step(actions_BT[:, 1 + i]).frames_BHWC for i in range(8)]
    # A clip holds six frames: it is full after frame 5 and continues from frames 3, 4 and 5; again after frame 8.
    for first in (3, 6):
        again = Rollout(
            model, torch.stack(shown[first : first + 3], dim=1), actions_BT[:, first : first + 2], decoding=GREEDY
        )
        for frame in range(first + 3, min(first + 6, 10)):
            assert torch.equal(again.step(actions_BT[:, frame - 1]).frames_BHWC, shown[frame])


def test_uncertainty_is_that_of_the_next_frame() -> None:
    model = lively_model("aligned")
    frames_BTHWC, actions_BT = random_clip()
    step = Rollout(model, frames_BTHWC[:, :2], actions_BT[:, :1], decoding=GREEDY).step(actions_BT[:, 1])
    log_probs_BNK = model.one_step_logits(frames_BTHWC[:, :2], actions_BT[:, :2])[:, 0].log_softmax(-1)
    wanted_BN = -(log_probs_BNK.exp() * log_probs_BNK).sum(-1) / torch.log(torch.tensor(32.0))
    assert step.uncertainty_BN.shape == (2, GRID[0] * GRID[1])
    torch.testing.assert_close(step.uncertainty_BN, wanted_BN)


def test_latent_actions_play_too() -> None:
    model = GenieRedux(unguided_config()).eval()
    frames_BTHWC, _ = random_clip()
    codes_BT = model.latent_actions.encode(frames_BTHWC)
    whole_BTHWC = model.rollout(frames_BTHWC[:, :2], codes_BT, decoding=GREEDY)
    played = Rollout(model, frames_BTHWC[:, :2], codes_BT[:, :1], decoding=GREEDY)
    for index in range(FRAMES - 2):
        assert torch.equal(played.step(codes_BT[:, 1 + index]).frames_BHWC, whole_BTHWC[:, index])


def test_what_cannot_be_played_is_refused() -> None:
    model = guided_model()
    frames_BTHWC, actions_BT = random_clip()
    with pytest.raises(ValueError, match=r"6 prime frames, allowed: 1 to 5 \(max_frames − 1\)"):
        Rollout(model, frames_BTHWC, actions_BT, decoding=GREEDY)
    with pytest.raises(ValueError, match=r"actions have shape \[2, 5\], allowed: \[2, 1\]"):
        Rollout(model, frames_BTHWC[:, :2], actions_BT, decoding=GREEDY)
    played = Rollout(model, frames_BTHWC[:, :2], actions_BT[:, :1], decoding=GREEDY)
    with pytest.raises(ValueError, match="actions range from 9 to 9, allowed: 0 to 4"):
        played.step(torch.tensor([9, 9]))
    with pytest.raises(ValueError, match=r"actions have shape \[3, 1\], allowed: \[2, 1\]"):
        played.step(torch.zeros(3, dtype=torch.int64))


def test_what_was_made_in_bf16_plays_in_bf16() -> None:
    model = guided_model("fsq", alignment="aligned")
    frames_BTHWC, actions_BT = random_clip()

    def frames(*, stepped: bool) -> list[torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            played = Rollout(model, frames_BTHWC[:, :2], actions_BT[:, :1], decoding=GREEDY)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=stepped):
            return [played.step(actions_BT[:, 0]).frames_BHWC for _ in range(4)]  # as many as fill the clip

    for shown, again in zip(frames(stepped=True), frames(stepped=False), strict=True):
        assert torch.equal(shown, again)
