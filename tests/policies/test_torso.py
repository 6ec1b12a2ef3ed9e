"""Scaling and embedding of frames."""

import pytest
import torch

from policies.torso import pooled_convolutions, scale_frames


def test_frames_are_scaled_once_and_only_from_uint8() -> None:
    white = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    assert scale_frames(white).shape == (1, 3, 2, 2)
    assert scale_frames(white).unique().tolist() == [1.0]
    with pytest.raises(ValueError, match=r"torch\.float32"):
        scale_frames(white / 255)


def test_convolutions_halve_the_frames_and_say_what_is_left() -> None:
    layers, features = pooled_convolutions((21, 16, 3), (4, 5))
    assert features == 5 * 4 * 5
    assert layers(torch.zeros(2, 3, 21, 16)).shape == (2, features)
