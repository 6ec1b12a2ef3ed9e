"""Tokens of windows are those of their frames, though a frame that several windows share is encoded once."""

import numpy as np
import pytest
import torch

from genie_ray.rewards.judges import WindowTokens
from genie_ray.rewards.windows import join, unfold
from tests.genie_ray.rewards.small_world import fragment, world_model


def test_tokens_are_the_frames_own_and_no_frame_is_encoded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = world_model(0).tokenizer
    parts = [unfold(*fragment(length, seed=length)) for length in (14, 4, 9)]
    windows = join([parts[0][2:], parts[1], parts[2][:3]])  # 9, 1 and 3 of them
    frames = torch.from_numpy(windows.frames)
    primes, arrived = tokenizer.encode(frames[:, :2]), tokenizer.encode(frames[:, 4:])[:, 0]
    shared, alone = WindowTokens(tokenizer, "fp32"), WindowTokens(tokenizer, "fp32")
    encoded: list[int] = []
    encode = tokenizer.encode
    monkeypatch.setattr(tokenizer, "encode", lambda clips: encoded.append(len(clips)) or encode(clips))
    assert torch.equal(shared.primes(windows), primes)
    assert torch.equal(shared.arrived(windows), arrived)
    assert encoded == [13, 8]  # of each part, what arrives in its last four windows, which begins none of its own
    assert torch.equal(alone.arrived(windows), arrived)
    later = join([parts[2][3:]])
    assert torch.equal(shared.arrived(later), encode(torch.from_numpy(later.frames[:, 4:]))[:, 0])
    assert len(np.unique(arrived.numpy())) > 1
