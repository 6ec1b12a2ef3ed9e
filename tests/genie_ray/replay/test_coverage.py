"""Cells, places and coverage curves."""

import numpy as np

from genie_ray.replay.coverage import Seen, cells, coverage_curve, place_of, seen


def slow_cell(frame: np.ndarray) -> bytes:
    """16×16 mean greys in 8 levels; for frames of uniform grey 4×4 blocks, where all roundings agree."""
    means = frame[..., 0].reshape(16, 4, 16, 4).mean(axis=(1, 3))
    return (means // 32).astype(np.uint8).tobytes()


def blocks(values: np.ndarray) -> np.ndarray:
    """[N, 16, 16] greys as frames [N, 64, 64, 3] of 4×4 blocks."""
    return values.repeat(4, axis=1).repeat(4, axis=2)[..., None].repeat(3, axis=-1)


def test_cells_are_equal_where_the_pictures_are() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(256, size=(1, 16, 16)).repeat(2000, axis=0)
    changed = rng.integers(16, size=(2000, 2))
    values[np.arange(2000), changed[:, 0], changed[:, 1]] = rng.integers(256, size=2000)
    frames = blocks(values).astype(np.uint8)
    expected = [slow_cell(frame) for frame in frames]
    assert 500 < len(set(expected)) < 1999
    found = cells(frames)
    assert found.dtype == np.uint64
    pairs = set(zip(expected, found.tolist(), strict=True))
    assert len(pairs) == len(set(expected)) == len(set(found.tolist()))


def test_noise_within_a_block_and_a_level_is_the_same_cell() -> None:
    frames = np.full((3, 64, 64, 3), 100, np.uint8)
    frames[1, ::2] += 10  # mean 105: level 3 as well, which is 96 to 127
    frames[2, :8, :8] += 40  # level 4 in four of the 256
    first, second, third = cells(frames)
    assert first == second != third


def test_works_for_frames_of_any_size() -> None:
    frames = np.random.default_rng(0).integers(256, size=(5, 50, 70, 3), dtype=np.uint8)
    assert len(set(cells(frames).tolist())) == 5


def test_places_are_those_of_the_emulators_variables() -> None:
    assert place_of({"score": 7, "lives": 3}) == ()
    assert place_of({"x": 33, "y": 15, "level": 2, "score": 1}) == (2, 0, 2)
    assert place_of({"x": 47, "y": 0, "level": 2}) == (2, 0, 2)
    assert place_of({"x": 48, "y": 0, "level": 2}) != (2, 0, 2)


def test_curve_counts_each_cell_when_it_is_first_seen(make_episode) -> None:
    greys = [[0, 0, 64, 0, 128], [128, 64, 192]]
    episodes = [
        make_episode(i, length=len(row) - 1, frames=blocks(np.array(row)[:, None, None].repeat(16, 1).repeat(16, 2)))
        for i, row in enumerate([np.array(g, np.uint8) for g in greys])
    ]
    # After each of 4 + 2 steps: 0 | 0 64 | … | 0 64 128 || the second episode starts at 128, known.
    assert coverage_curve(iter(episodes)).tolist() == [1, 2, 2, 3, 3, 4]


def test_play_is_counted_at_equal_steps(make_episode) -> None:
    """Cells are 8 grey levels; places 16 pixels of a level: 0, 1, 2 and 0, 3, 5."""
    shades, places = ([0, 40, 80, 80, 120], [200, 0, 160]), ([1, 1, 20, 20, 40], [1, 60, 80])
    episodes = [
        make_episode(
            index,
            length=len(values) - 1,
            frames=blocks(np.array(values, np.uint8)[:, None, None].repeat(16, 1).repeat(16, 2)),
            infos=[{"x": x, "level": index} for x in xs],
        )
        for index, (values, xs) in enumerate(zip(shades, places, strict=True))
    ]
    assert seen(episodes, 3) == Seen(steps=3, cells=3, places=2, levels=1)
    assert seen(episodes, 5) == Seen(steps=5, cells=5, places=5, levels=2)  # the second episode's 200 and 0, at 0 and 3
    assert seen(episodes, 99) == Seen(steps=6, cells=6, places=6, levels=2)
    untold = seen([make_episode(0, length=2, infos=[{}] * 3)], 9)
    assert (untold.places, untold.levels) == (None, None)
