"""Windows of replay: compared with a slow reader, and the properties that training relies on."""

import itertools
from collections import Counter

import numpy as np
import pytest

from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.loading.windows import Batch, WindowLoader, iter_windows

KANGAROO = "Kangaroo-Atari2600-v0"
LENGTHS = [40, 33, 25, 300, 7, 61, 15, 52]  # two of them too short for 16 frames: 8 and 16, the last just fits


def origins(batch: Batch) -> list[tuple[int, int]]:
    """The episode and first step of each window, read from its first pixel."""
    return [(index, 256 * high + low) for index, high, low in batch["frames_BTHWC"][:, 0, 0, 0].tolist()]


def epoch_of(loader: WindowLoader, epoch: int = 0) -> list[Batch]:
    """All batches of an epoch."""
    loader.load_state_dict({"epoch": epoch, "examples": 0})
    return list(itertools.takewhile(lambda _: loader.state_dict()["epoch"] == epoch, loader))


def same(a: Batch, b: Batch) -> bool:
    return bool((a["frames_BTHWC"] == b["frames_BTHWC"]).all() and (a["actions_BT"] == b["actions_BT"]).all())


@pytest.fixture
def dataset(make_dataset) -> ReplayDataset:
    return make_dataset(LENGTHS)


def test_ordered_pass_equals_slow_reading(make_dataset) -> None:
    make_dataset([40, 7, 20], game=KANGAROO)
    dataset = make_dataset([15, 31])
    frames, actions, games = [], [], []
    for ref in dataset.episodes:
        episode = dataset.read(ref)
        padded = [*episode.actions.tolist(), 0]  # nothing follows the last observation
        for start in range(0, 1000, 5):
            if start + 16 <= len(episode.frames):
                frames.append(episode.frames[start : start + 16])
                actions.append(padded[start : start + 16])
                games.append(episode.game)
    batches = list(iter_windows(dataset, "all", 16, stride=5, batch_size=4))
    assert [len(batch["games"]) for batch in batches] == [4] * (len(frames) // 4) + [len(frames) % 4]
    np.testing.assert_array_equal(np.concatenate([b["frames_BTHWC"] for b in batches]), frames)
    np.testing.assert_array_equal(np.concatenate([b["actions_BT"] for b in batches]), actions)
    assert list(itertools.chain(*(b["games"] for b in batches))) == games
    assert str(batches[0]["frames_BTHWC"].dtype) == "torch.uint8"
    assert str(batches[0]["actions_BT"].dtype) == "torch.int64"
    # Hero's 16 frames just make a window, with the final observation; Kangaroo's 8 make none.
    assert Counter(games) == {"Hero-Atari2600-v0": 1 + 4, KANGAROO: 6 + 2}


def test_limit_spreads_over_the_split(dataset: ReplayDataset) -> None:
    every = [o for batch in iter_windows(dataset, "all", 16, stride=1, batch_size=64) for o in origins(batch)]
    some = [o for batch in iter_windows(dataset, "all", 16, stride=1, batch_size=3, limit=7) for o in origins(batch)]
    assert some == [every[i * len(every) // 7] for i in range(7)]


@pytest.mark.parametrize("shuffle_buffer", [1, 16, 64, 10_000])
def test_epoch_holds_every_window_once(dataset: ReplayDataset, shuffle_buffer: int) -> None:
    loader = WindowLoader(dataset, split="all", stride=1, batch_size=8, seed=0, shuffle_buffer=shuffle_buffer)
    batches = epoch_of(loader)
    seen = [origin for batch in batches for origin in origins(batch)]
    every = {(i, start) for i, length in enumerate(LENGTHS) for start in range(length + 1 - 16 + 1)}
    assert len(seen) == len(set(seen)) == len(every) // 8 * 8
    assert set(seen) <= every
    episodes = [dataset.read(ref) for ref in dataset.episodes]
    for batch in batches:
        for frames, actions, (index, start) in zip(
            batch["frames_BTHWC"].numpy(), batch["actions_BT"].numpy(), origins(batch), strict=True
        ):
            episode = episodes[index]
            np.testing.assert_array_equal(frames, episode.frames[start : start + 16])
            np.testing.assert_array_equal(actions, [*episode.actions, 0][start : start + 16])


def test_order_is_shuffled_and_another_in_every_epoch(dataset: ReplayDataset) -> None:
    loader = WindowLoader(dataset, split="all", stride=1, batch_size=8, seed=0)
    epochs = [[origin for batch in epoch_of(loader, epoch) for origin in origins(batch)] for epoch in range(2)]
    assert epochs[0] != epochs[1]
    assert epochs[0] != sorted(epochs[0])
    mixed = [len({index for index, _ in epochs[0][i : i + 8]}) > 1 for i in range(0, len(epochs[0]), 8)]
    assert np.mean(mixed) > 0.8  # batches of several episodes


def test_stride_keeps_its_distance_and_reaches_every_position(dataset: ReplayDataset) -> None:
    loader = WindowLoader(dataset, split="all", stride=6, batch_size=1, seed=0)
    positions = set()
    for epoch in range(60):
        starts: dict[int, list[int]] = {}
        for batch in epoch_of(loader, epoch):
            ((index, start),) = origins(batch)
            starts.setdefault(index, []).append(start)
        for index, found in starts.items():
            possible = LENGTHS[index] + 1 - 16 + 1
            assert set(np.diff(sorted(found))) <= {6}
            assert min(found) < 6
            assert max(found) + 6 >= possible
            positions |= {(index, start) for start in found}
        assert starts.keys() == {0, 1, 2, 3, 5, 6, 7}
    assert positions == {(i, s) for i, length in enumerate(LENGTHS) for s in range(length + 1 - 16 + 1)}


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_an_epoch_evenly(dataset: ReplayDataset, world_size: int) -> None:
    ranks = [
        WindowLoader(
            dataset, split="all", stride=2, batch_size=5, seed=1, rank=rank, world_size=world_size, shuffle_buffer=20
        )
        for rank in range(world_size)
    ]
    for epoch in range(3):
        epochs = [epoch_of(loader, epoch) for loader in ranks]
        assert len({len(batches) for batches in epochs}) == 1
        seen = [origin for batches in epochs for batch in batches for origin in origins(batch)]
        assert len(seen) == len(set(seen))
        total = sum((length + 2 - 16) / 2 for length in LENGTHS if length >= 15)
        assert len(seen) > total - len(LENGTHS) - 5 * world_size


def test_same_seed_same_batches(dataset: ReplayDataset) -> None:
    def start(seed: int) -> list[Batch]:
        loader = WindowLoader(dataset, split="all", stride=2, batch_size=8, seed=seed)
        return list(itertools.islice(loader, 60))

    first, again, other = start(3), start(3), start(4)
    assert all(map(same, first, again))
    assert not any(map(same, first, other))


@pytest.mark.parametrize("taken", [0, 1, 7, 26, 27, 28, 60])
def test_resumes_exactly(dataset: ReplayDataset, taken: int) -> None:
    """Also across blocks, at the end of an epoch (27 batches) and in the next one."""

    def make() -> WindowLoader:
        return WindowLoader(dataset, split="all", stride=2, batch_size=8, seed=0, rank=0, shuffle_buffer=24)

    unbroken, resumed = make(), make()
    for _ in range(taken):
        next(unbroken)
    next(resumed)  # wherever it was
    resumed.load_state_dict(unbroken.state_dict())
    assert resumed.state_dict() == unbroken.state_dict()
    for _ in range(40):
        assert same(next(resumed), next(unbroken))
        assert resumed.state_dict() == unbroken.state_dict()


def test_goes_on_as_far_in_with_another_world_size(dataset: ReplayDataset) -> None:
    alone = WindowLoader(dataset, split="all", stride=1, batch_size=6, seed=0)
    for _ in range(10):
        next(alone)
    pair = WindowLoader(dataset, split="all", stride=1, batch_size=6, seed=0, rank=1, world_size=2)
    pair.load_state_dict(alone.state_dict())
    assert pair.state_dict() == {"epoch": 0, "examples": 60}
    next(pair)
    assert pair.state_dict() == {"epoch": 0, "examples": 72}


def test_batches_own_their_memory(dataset: ReplayDataset) -> None:
    loader = WindowLoader(dataset, split="all", stride=1, batch_size=8, seed=0, shuffle_buffer=8)
    first = next(loader)
    before = first["frames_BTHWC"].clone()
    next(loader)
    assert (first["frames_BTHWC"] == before).all()


def test_splits_share_no_window(dataset: ReplayDataset) -> None:
    seen = {}
    for split in ("train", "validation"):
        loader = WindowLoader(dataset, split=split, length=8, stride=1, batch_size=1, seed=0)
        seen[split] = {index for batch in epoch_of(loader) for index, _ in origins(batch)}
    assert not seen["train"] & seen["validation"]
    assert seen["train"] | seen["validation"] == set(range(8))


def test_what_cannot_be_read_is_refused(make_dataset) -> None:
    dataset = make_dataset([20, 30, 40])
    with pytest.raises(ValueError, match="no window of 42 frames: its longest episode has 41"):
        WindowLoader(dataset, split="all", length=42, stride=1, batch_size=1, seed=0)
    with pytest.raises(ValueError, match="no window of 42 frames: its longest episode has 41"):
        list(iter_windows(dataset, "all", 42, stride=1, batch_size=1))
    with pytest.raises(
        ValueError, match="has 1 windows of 41 frames at stride 1: fewer than one batch of 1 for each of 2"
    ):
        WindowLoader(dataset, split="all", length=41, stride=1, batch_size=1, seed=0, world_size=2)
    with pytest.raises(ValueError, match="stride is 0: must be at least 1"):
        WindowLoader(dataset, split="all", stride=0, batch_size=1, seed=0)
    with pytest.raises(ValueError, match="rank is 2: must be from 0 to 1"):
        WindowLoader(dataset, split="all", stride=1, batch_size=1, seed=0, rank=2, world_size=2)
    single = make_dataset([20], game=KANGAROO)
    del single.episodes[:3]
    with pytest.raises(ValueError, match=r"split 'validation' of .* has no episodes"):
        WindowLoader(single, split="validation", stride=1, batch_size=1, seed=0)
