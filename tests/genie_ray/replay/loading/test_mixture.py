"""Datasets mixed by weight: exact shares, whole passes, positions; an epoch's order, looked up and as a list."""

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.loading.mixture import ReplayMix, WeightedData, open_mix, parse_data
from genie_ray.replay.loading.order import Supply, epoch_order, in_order
from genie_ray.replay.loading.windows import WindowLoader, iter_windows
from genie_ray.replay.writer import write_shard
from tests.genie_ray.tiny_world import NAMES, tiny_dataset

HERO = "Hero-Atari2600-v0"


@pytest.fixture
def make_part(tmp_path: Path, make_episode, finish) -> Callable[..., ReplayDataset]:
    """Call with a name, the index of the first episode and lengths; indices tell the parts of a mix apart."""

    def make(name: str, first: int, lengths: list[int]) -> ReplayDataset:
        episodes = [make_episode(first + i, length) for i, length in enumerate(lengths)]
        write_shard(tmp_path / name, HERO, "00000", episodes)
        return finish(tmp_path / name)

    return make


@pytest.fixture
def parts(make_part) -> list[ReplayDataset]:
    """174 and 46 windows of 16 frames at stride 1."""
    return [make_part("large", 0, [40, 33, 115, 7, 42]), make_part("small", 100, [20, 54])]


def epoch_of(loader: WindowLoader, epoch: int = 0) -> list[tuple[int, int]]:
    """Episode and first step of each window, read from its first pixel."""
    loader.load_state_dict({"epoch": epoch, "examples": 0})
    batches = itertools.takewhile(lambda _: loader.state_dict()["epoch"] == epoch, loader)
    return [(i, 256 * high + low) for b in batches for i, high, low in b["frames_BTHWC"][:, 0, 0, 0].tolist()]


@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (10, 0.5), (174, 46)])
def test_each_dataset_has_its_share_in_whole_passes(parts: list[ReplayDataset], weights: tuple[float, float]) -> None:
    loader = WindowLoader(ReplayMix(parts, weights), split="all", stride=1, batch_size=1, seed=0)
    epochs = [epoch_of(loader, epoch) for epoch in range(2)]
    assert epochs[0] != epochs[1]
    for epoch in epochs:
        assert len(epoch) == 174 + 46
        times = Counter(epoch)
        for dataset, windows, weight in zip(("large", "small"), (174, 46), weights, strict=True):
            mine = {window: n for window, n in times.items() if (window[0] >= 100) == (dataset == "small")}
            share = 220 * weight / sum(weights)
            assert abs(sum(mine.values()) - share) <= 0.5
            fewest = int(sum(mine.values()) / windows)  # passes made whole
            assert set(mine.values()) <= {fewest, fewest + 1}
            assert len(mine) == windows or fewest == 0


def test_shares_hold_all_along_and_on_every_rank(make_part) -> None:
    parts = [make_part("a", 0, [100] * 12), make_part("b", 100, [100] * 4)]
    visit = 17  # the most windows in a row of one episode of 101 frames
    for world_size in (1, 2):
        for rank in range(world_size):
            loader = WindowLoader(
                ReplayMix(parts, [1, 2]),
                split="all",
                stride=1,
                batch_size=4,
                seed=0,
                rank=rank,
                world_size=world_size,
                shuffle_buffer=4,  # hardly shuffled
            )
            second = np.cumsum([index >= 100 for index, _ in epoch_of(loader)])
            expected = np.arange(1, len(second) + 1) * 2 / 3
            assert np.abs(second - expected).max() <= 2 * visit


def test_a_mix_resumes_exactly_and_follows_its_seed(parts: list[ReplayDataset]) -> None:
    def make(seed: int = 0, weights: tuple[float, float] = (1, 2)) -> WindowLoader:
        return WindowLoader(
            ReplayMix(parts, weights), split="all", stride=3, batch_size=8, seed=seed, shuffle_buffer=24
        )

    unbroken, resumed, other, reweighted = make(), make(), make(seed=1), make(weights=(2, 1))
    for _ in range(13):
        next(unbroken)
    resumed.load_state_dict(unbroken.state_dict())
    for _ in range(30):
        ours, theirs = next(resumed), next(unbroken)
        assert (ours["frames_BTHWC"] == theirs["frames_BTHWC"]).all()
        assert (ours["actions_BT"] == theirs["actions_BT"]).all()
    assert epoch_of(make()) == epoch_of(make())
    assert epoch_of(make()) != epoch_of(other)
    assert epoch_of(make()) != epoch_of(reweighted)


def test_an_ordered_pass_takes_its_limit_by_share(parts: list[ReplayDataset]) -> None:
    mix = ReplayMix(parts, [1, 3])

    def counts(limit: int | None) -> list[int]:
        batches = iter_windows(mix, "all", 16, stride=1, batch_size=8, limit=limit)
        indices = np.concatenate([batch["frames_BTHWC"][:, 0, 0, 0, 0] for batch in batches])
        return [int((indices < 100).sum()), int((indices >= 100).sum())]

    assert counts(None) == [174, 46]
    assert counts(40) == [10, 30]
    assert counts(100) == [25, 46]  # there are no more


def test_a_position_is_looked_up_as_in_a_list() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(16, 400, size=30)
    for stride in (1, 3, 16, 50):
        supply = Supply.of([rows.tolist()], [1.0], span=16, stride=stride)
        order = epoch_order(supply, seed=0, epoch=0)
        visits = zip(order.episode, order.first, order.step, order.count, strict=True)
        listed = [(e, first + step * n) for e, first, step, count in visits for n in range(count)]
        np.testing.assert_array_equal(order.at(np.arange(len(order))), listed)
        assert len(set(listed)) == len(listed) >= supply.fewest
        assert all(0 <= first <= rows[e] - 16 for e, first in listed)
        decoded = rows[order.episode].sum()
        assert decoded <= max(16, stride) * len(order) + rows.sum()  # no more rows than its windows hold, about
        every = [(e, first) for e in range(30) for first in range(0, rows[e] - 15, stride)]
        np.testing.assert_array_equal(in_order(supply).at(np.arange(len(every))), every)


def test_data_as_it_is_written() -> None:
    assert parse_data("data/random") == WeightedData(path=Path("data/random"))
    assert parse_data("data/explore:2") == WeightedData(path=Path("data/explore"), weight=2)
    assert parse_data("a:b/c:.5") == WeightedData(path=Path("a:b/c"), weight=0.5)
    assert parse_data("s3://bucket/play:2") == WeightedData(path="s3://bucket/play", weight=2)
    assert parse_data("s3://bucket/play") == WeightedData(path="s3://bucket/play")
    assert parse_data("a:b") == WeightedData(path=Path("a:b"))
    for text in ("a:0", "a:-1"):
        with pytest.raises(ValueError, match=r"weight of a is -?\d: must be above 0 and finite"):
            parse_data(text)


def test_what_cannot_be_mixed_is_refused(parts: list[ReplayDataset], tmp_path: Path) -> None:
    tiny = tiny_dataset(tmp_path / "tiny")
    renamed = tiny_dataset(tmp_path / "renamed", names=(*NAMES[:-1], "FIRE"))
    with pytest.raises(ValueError, match=r"cannot be mixed: their frames are \(4, 6, 3\) and \(16, 16, 3\)"):
        ReplayMix([parts[0], tiny], [1, 1])
    with pytest.raises(ValueError, match=r"cannot be mixed: their actions are .*'JUMP'\) and .*'FIRE'\)"):
        ReplayMix([tiny, renamed], [1, 1])
    with pytest.raises(ValueError, match="is mixed with itself: give it a larger weight"):
        open_mix((WeightedData(path=tiny.root), WeightedData(path=tiny.root, weight=2)))
    with pytest.raises(ValueError, match=r"no replay dataset in .*absent"):
        open_mix((WeightedData(path=tiny.root), WeightedData(path=tmp_path / "absent")))
    with pytest.raises(ValueError, match=r"shares of .* are 1, 1e-06: too small for one of 220 windows"):
        WindowLoader(ReplayMix(parts, [1, 1e-6]), split="all", stride=1, batch_size=1, seed=0)
    with pytest.raises(ValueError, match=r"split 'all' of .*small has no window of 60 frames: its longest .* 55"):
        WindowLoader(ReplayMix(parts, [1, 1]), split="all", length=60, stride=1, batch_size=1, seed=0)


def test_an_episode_of_twice_the_weight_comes_twice_as_often_within_its_dataset() -> None:
    """Four episodes of ten windows each; the second dataset keeps half of the examples."""
    supply = Supply.of([[10, 10], [10, 10]], [0.5, 0.5], span=1, stride=1)
    order = epoch_order(supply.weighted([1.0, 3.0, 2.0, 2.0]), seed=0, epoch=0)
    times = Counter(order.at(np.arange(len(order)))[:, 0].tolist())
    assert (times[0], times[1], times[2] + times[3]) == (5, 15, 20)
    with pytest.raises(ValueError, match="must be 4 numbers above 0"):
        supply.weighted([1.0, 0.0, 1.0, 1.0])


def test_a_group_too_small_for_one_example_is_left_out() -> None:
    supply = Supply.of([[1, 99]], [1.0], span=1, stride=1)
    order = epoch_order(supply.weighted([0.01, 1.0]), seed=0, epoch=0)
    assert set(order.at(np.arange(len(order)))[:, 0].tolist()) == {1}


def test_a_part_may_be_one_game_of_a_dataset(tmp_path: Path) -> None:
    """Two games of one dataset are two parts, each with its share."""
    root = tiny_dataset(tmp_path).root  # 13 frames of Hero, 21 of Kangaroo
    kangaroo = "Kangaroo-Atari2600-v0"
    mix = open_mix([WeightedData(path=root, game=kangaroo)])
    games = [game for batch in iter_windows(mix, "all", 4, stride=1, batch_size=5) for game in batch["games"]]
    assert games == [kangaroo] * 18
    both = open_mix([WeightedData(path=root, game=kangaroo), WeightedData(path=root, game=HERO, weight=3)])
    assert both.shares == (0.25, 0.75)
    assert [len(part) for part in both.split("all")] == [1, 1]
    with pytest.raises(ValueError, match="is mixed with itself"):
        open_mix([WeightedData(path=root, game=HERO)] * 2)
