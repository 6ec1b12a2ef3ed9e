"""Which tokens training hides, and which it replaces."""

import math

import torch

from world_model.objective import draw_mask, expected_code_distance, hide_past, replace_some


def test_frame_masks_have_a_complete_past() -> None:
    """Before a clip's drawn frame nothing is hidden; that frame is hidden completely in about half of the clips."""
    clips, frames = 4_000, 5
    mask_BTHW = draw_mask(torch.zeros(clips, frames, 4, 4), "frame", torch.Generator().manual_seed(1))
    assert mask_BTHW.shape == (clips, frames, 4, 4)
    hidden_BT = mask_BTHW.float().mean(dim=(2, 3))
    first_B = (hidden_BT.cumsum(dim=1) == 0).sum(dim=1)  # of the frames with something hidden
    shares = torch.bincount(first_B, minlength=frames + 1) / clips
    assert (shares[:frames] - 1 / frames).abs().max() < 0.05  # the drawn frame is uniform
    drawn_B = hidden_BT[torch.arange(clips), first_B.clamp(max=frames - 1)]
    assert abs((drawn_B == 1).float().mean() - 0.5) < 0.1
    later = hidden_BT[first_B == 0][:, 1:]
    assert abs(later.mean() - 2 / math.pi) < 0.02  # the mean of cos(π/2 · u)


def test_paired_masks_hide_half_of_the_frames_completely() -> None:
    mask_BTHW = draw_mask(torch.zeros(2_000, 5, 16, 16), "paired", torch.Generator().manual_seed(1))
    hidden_BT = mask_BTHW.float().mean(dim=(2, 3))
    empty_T = (hidden_BT == 1).float().mean(dim=0)
    assert (empty_T - 0.5).abs().max() < 0.06  # a rate near 1 may hide all of a frame, too
    assert abs(hidden_BT.mean() - (0.5 + 0.5 * 2 / math.pi)) < 0.01


def test_the_mask_probability_is_uniform_from_one_half_to_one() -> None:
    tokens_BTHW, generator = torch.zeros(1, 2, 32, 32), torch.Generator().manual_seed(1)
    shares = torch.tensor([draw_mask(tokens_BTHW, "clip", generator).float().mean() for _ in range(400)])
    assert shares.min() > 0.45
    assert shares.max() <= 1
    assert abs(shares.mean() - 0.75) < 0.03
    assert abs(shares.std() - 0.5 / math.sqrt(12)) < 0.02  # of a uniform distribution on [0.5, 1]


def test_past_noise_replaces_up_to_its_share() -> None:
    tokens_BTHW = torch.full((2_000, 3, 8, 8), 31)
    share_BT = (replace_some(tokens_BTHW, 0.4, codes=32) != tokens_BTHW).float().mean(dim=(2, 3))
    assert abs(share_BT.mean() - 0.2 * 31 / 32) < 0.01  # one in 32 is replaced by itself
    assert share_BT.max() < 0.7
    assert torch.equal(replace_some(tokens_BTHW, 0.0, codes=32), tokens_BTHW)


def test_a_hidden_past_begins_anywhere_but_at_the_first_frame() -> None:
    tokens_BTHW = torch.zeros(8_000, 5, 2, 2, dtype=torch.int64)
    hidden_BTHW = hide_past(tokens_BTHW, 0.4, hidden=9) == 9
    hidden_BT = hidden_BTHW.flatten(2).all(dim=2)
    assert torch.equal(hidden_BTHW, hidden_BT[:, :, None, None].expand_as(hidden_BTHW))  # whole frames
    assert (hidden_BT.int().diff(dim=1) >= 0).all()  # from one on, all
    firsts = torch.bincount(5 - hidden_BT.sum(dim=1), minlength=6) / 8_000  # 5: nothing is hidden
    torch.testing.assert_close(firsts, torch.tensor([0, 0.1, 0.1, 0.1, 0.1, 0.6]), atol=0.02, rtol=0)
    assert torch.equal(hide_past(tokens_BTHW, 0.0, hidden=9), tokens_BTHW)


def test_token_distance_by_hand() -> None:
    vectors_KC = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    probs_MK = torch.tensor([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0]])
    targets_M = torch.tensor([0, 1])
    # Squared distances to vector 0 are 0, 5, 9: 0.5·0 + 0.3·5 + 0.2·9; all mass on the target costs nothing.
    torch.testing.assert_close(expected_code_distance(probs_MK, targets_M, vectors_KC), torch.tensor([3.3, 0.0]))


def test_token_distance_is_exact_under_autocast() -> None:
    vectors_KC, targets_M = torch.randn(64, 8), torch.arange(64)
    with torch.autocast("cpu", torch.bfloat16):
        assert expected_code_distance(torch.eye(64), targets_M, vectors_KC).abs().max() < 1e-4
