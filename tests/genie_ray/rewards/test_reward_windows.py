"""Windows are cut from fragments as defined, and invalid fragments are refused."""

from typing import Any

import numpy as np
import pytest

from genie_ray.rewards.windows import check_fragments, join, unfold
from tests.genie_ray.rewards.small_world import SIZES, fragment
from tests.policies.toys import SIZE


def test_windows_by_hand() -> None:
    frames = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    windows = unfold(frames, np.array([10, 11, 12, 13, 14]), "first")
    np.testing.assert_array_equal(windows.frames[..., 0, 0, 0], [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(windows.actions_M4, [[10, 11, 12, 13], [11, 12, 13, 14]])
    assert windows.episodes == ["first", "first"]


@pytest.mark.parametrize("length", [0, 1, 3])
def test_short_fragments_have_no_window(length: int) -> None:
    windows = unfold(*fragment(length))
    assert len(windows) == 0
    assert windows.frames.shape == (0, 5, SIZE, SIZE, 3)


def test_joined_windows_keep_their_order() -> None:
    parts = [unfold(*fragment(length, seed=length), str(length)) for length in (6, 4)]
    joined = join([parts[0][1:], parts[1]])
    assert joined.episodes == ["6", "6", "4"]
    np.testing.assert_array_equal(joined.frames[2], parts[1].frames[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": [fragment(5)[0][:, ::2]]}, r"fragment 0: frames have shape \[6, 8, 16, 3\]"),
        ({"frames": [fragment(5)[0][:-1]]}, r"allowed with 5 actions: \[6, 16, 16, 3\]"),
        ({"frames": [fragment(5)[0] / 255]}, "type float64"),
        ({"actions": [np.array([0, 1, 2, 3, 4])]}, "actions range from 0 to 4; allowed: 0 to 3"),
        ({"actions": [np.zeros(5)]}, "type float64; allowed"),
        ({"actions": [np.array(3)]}, r"actions have shape \[\] and type int64; allowed: \[n\], integers"),
        ({"frames": [np.array(3, np.uint8)]}, r"frames have shape \[\] and type uint8"),
        ({"actions": []}, "1 frame arrays, 0 action arrays"),
        ({"episodes": ["a", "b"]}, "and 2 episodes"),
    ],
)
def test_what_is_no_fragment_is_refused(change: dict[str, Any], message: str) -> None:
    frames, actions = fragment(5)
    with pytest.raises(ValueError, match=message):
        check_fragments(**{"frames": [frames], "actions": [actions], "episodes": None, **change}, **SIZES)
