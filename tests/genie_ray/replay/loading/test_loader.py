"""The loaders' internals: threads, positions, memory; and a comparison with a slow reader on real play."""

import concurrent.futures
import gc
import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.loading.batches import RecycledMemory
from genie_ray.replay.loading.windows import Batch, WindowLoader

LENGTHS = [40, 33, 25, 300, 7, 61, 15, 52]

Window = tuple[bytes, tuple[int, ...]]


def slow_windows(root: Path, length: int, stride: int) -> dict[str, list[Window]]:
    """The windows of each episode, at multiples of the stride, read through Python objects."""
    windows = {}
    for path in root.glob("*/*.parquet"):
        rows = pq.read_table(path, partitioning=None).to_pylist()
        for episode_id, episode in itertools.groupby(rows, key=lambda row: row["episode_id"]):
            steps = sorted(episode, key=lambda row: row["step"])
            windows[episode_id] = [
                (
                    b"".join(row["frame"] for row in steps[start : start + length]),
                    tuple(max(row["action"], 0) for row in steps[start : start + length]),
                )
                for start in range(0, len(steps) - length + 1, stride)
            ]
    return windows


def windows_of(batch: Batch) -> list[Window]:
    pairs = zip(batch["frames_BTHWC"].numpy(), batch["actions_BT"].tolist(), strict=True)
    return [(frames.tobytes(), tuple(actions)) for frames, actions in pairs]


def epoch_of(loader: WindowLoader, epoch: int) -> list[Window]:
    loader.load_state_dict({"epoch": epoch, "examples": 0})
    batches = itertools.takewhile(lambda _: loader.state_dict()["epoch"] == epoch, loader)
    return [window for batch in batches for window in windows_of(batch)]


def wait_until_ahead(loader: WindowLoader) -> None:
    assert loader._ahead is not None
    concurrent.futures.wait(loader._ahead._pending)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.fixture
def dataset(make_dataset) -> ReplayDataset:
    return make_dataset(LENGTHS)


@pytest.mark.parametrize("shuffle_buffer", [1, 50, 10_000])
def test_an_epoch_of_real_play_is_what_a_slow_reader_reads(replay: ReplayDataset, shuffle_buffer: int) -> None:
    loader = WindowLoader(replay, split="all", stride=1, batch_size=1, seed=0, shuffle_buffer=shuffle_buffer)
    every = Counter(itertools.chain(*slow_windows(replay.root, 16, 1).values()))
    assert sum(every.values()) > 400
    assert Counter(epoch_of(loader, 0)) == Counter(epoch_of(loader, 1)) == every


@pytest.mark.parametrize("stride", [5, 16, 40])
def test_a_strided_epoch_has_every_stride_th_window_of_each_episode(dataset: ReplayDataset, stride: int) -> None:
    loader = WindowLoader(dataset, split="all", stride=stride, batch_size=1, seed=0, shuffle_buffer=7)
    slow = slow_windows(dataset.root, 16, 1)
    assert sorted(map(len, slow.values())) == sorted(max(0, length + 1 - 16 + 1) for length in LENGTHS)
    for epoch in range(4):
        seen = Counter(epoch_of(loader, epoch))
        for windows in filter(None, slow.values()):
            begins = [begin for begin in range(stride) if seen.keys() >= set(windows[begin::stride]) != set()]
            assert len(begins) == 1
            seen -= Counter(windows[begins[0] :: stride])
        assert not +seen


@pytest.mark.parametrize("taken", [1, 26, 27, 40])
def test_the_position_is_that_of_the_batches_handed_out(dataset: ReplayDataset, taken: int) -> None:
    """Not of prefetched batches: within a block, at the end of an epoch (27 batches), and in the next."""

    def make() -> WindowLoader:
        return WindowLoader(dataset, split="all", stride=2, batch_size=8, seed=0, shuffle_buffer=24)

    running = make()
    for _ in range(taken):
        next(running)
    wait_until_ahead(running)
    state = json.loads(json.dumps(running.state_dict()))
    expected = [windows_of(next(running)) for _ in range(40)]
    resumed = make()
    assert next(resumed)
    resumed.load_state_dict(state)
    assert [windows_of(next(resumed)) for _ in range(40)] == expected
    running.close()
    assert windows_of(next(running)) == windows_of(next(resumed))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_order_follows_from_seed_epoch_rank_and_world_size(dataset: ReplayDataset, world_size: int) -> None:
    def windows(seed: int, epoch: int, rank: int) -> tuple[Window, ...]:
        loader = WindowLoader(
            dataset,
            split="all",
            stride=1,
            batch_size=3,
            seed=seed,
            rank=rank,
            world_size=world_size,
            shuffle_buffer=30,
        )
        return tuple(epoch_of(loader, epoch))

    cases = list(itertools.product([0, 1], [0, 1], range(world_size)))
    first, again = ({case: windows(*case) for case in cases} for _ in range(2))
    assert first == again
    assert len(set(first.values())) == len(cases)
    for seed, epoch in itertools.product([0, 1], [0, 1]):
        ranks = [set(first[seed, epoch, rank]) for rank in range(world_size)]
        assert len(set.union(*ranks)) == sum(map(len, ranks)) == sum(len(first[seed, epoch, 0]) for _ in ranks)


def test_damage_is_reported_in_its_turn_again_and_again(make_dataset) -> None:
    dataset = make_dataset([60] * 12, per_shard=1)
    path = dataset.episodes[5].path
    path.write_bytes(path.read_bytes()[:-20])
    loader = WindowLoader(dataset, split="all", stride=1, batch_size=4, seed=0, shuffle_buffer=8)
    given = 0
    with pytest.raises(ValueError, match=rf"damaged file {path}, row group 0"):
        for given, _ in enumerate(loader, start=1):  # noqa: B007
            pass
    assert given > 0
    assert loader.state_dict() == {"epoch": 0, "examples": 4 * given}
    with pytest.raises(ValueError, match=rf"damaged file {path}, row group 0"):
        next(loader)


def test_the_thread_ends_with_its_loader(dataset: ReplayDataset) -> None:
    before = len(readers())
    loader = WindowLoader(dataset, split="all", stride=1, batch_size=4, seed=0)
    assert len(readers()) == before  # nothing is read before the first request
    next(loader)
    assert len(readers()) == before + 1
    loader.close()
    assert len(readers()) == before
    next(loader)
    del loader
    gc.collect()
    deadline = time.monotonic() + 10
    while len(readers()) > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(readers()) == before


def test_memory_is_used_again_only_when_nothing_refers_to_it(dataset: ReplayDataset) -> None:
    memory = RecycledMemory()
    first = memory((4, 6), torch.uint8)
    address, part = first.data_ptr(), first[2:3]
    part.fill_(7)
    del first
    other = memory((4, 6), torch.uint8).fill_(0)
    assert other.data_ptr() != address
    assert part.eq(7).all()
    del part
    assert memory((2, 12), torch.uint8).data_ptr() == address

    loader = WindowLoader(dataset, split="all", stride=1, batch_size=4, seed=0, shuffle_buffer=8)
    kept = [(batch["frames_BTHWC"][1], batch["frames_BTHWC"][1].clone()) for batch in itertools.islice(loader, 100)]
    assert all(torch.equal(part, copy) for part, copy in kept)


PEAK = """
import itertools, sys
from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.loading.windows import WindowLoader

def peak():  # MB
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 1e3

dataset = ReplayDataset(sys.argv[1])
loader = WindowLoader(dataset, split="all", stride=16, batch_size=16, seed=0, shuffle_buffer=128)
before = peak()
for _ in itertools.takewhile(lambda _: loader.state_dict()["epoch"] == 0, loader):
    pass
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_dataset(tmp_path: Path, make_episode, finish_pixels) -> None:
    """128 windows of 16 frames are 25 MB, four batches 13 MB, an episode 3 MB; the datasets hold 100 and 800 MB."""
    peaks = []
    for episodes in (40, 320):
        dataset = finish_pixels(tmp_path / str(episodes), episodes)
        frames = sum(ref.length + 1 for ref in dataset.episodes)
        assert frames * 64 * 64 * 3 > episodes * 2.4e6
        arguments = [sys.executable, "-c", PEAK, str(dataset.root)]
        peaks.append(float(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout))
    assert max(peaks) < 120
    assert peaks[1] - peaks[0] < 60


@pytest.fixture
def finish_pixels(make_episode):
    """Call with a root and a number of episodes to have a dataset of 200 frames of 64×64 pixels in each."""
    from genie_ray.replay.dataset import count_episodes, index_episodes
    from genie_ray.replay.metadata import DatasetMetadata
    from genie_ray.replay.writer import write_metadata, write_shard

    def make(root: Path, episodes: int) -> ReplayDataset:
        frames = np.zeros((201, 64, 64, 3), np.uint8)
        frames[:, :8] = np.random.default_rng(0).integers(256, size=(8, 64, 3))
        for first in range(0, episodes, 10):
            write_shard(
                root,
                "Hero-Atari2600-v0",
                f"{first:05d}",
                (make_episode(index, 200, frames=frames) for index in range(first, first + 10)),
            )
        counts = count_episodes(index_episodes(root))
        names = ("RIGHT", "LEFT", "UP", "DOWN", "JUMP")
        write_metadata(
            root, DatasetMetadata(action_names=names, frame_shape=(64, 64, 3), policy="random", counts=counts)
        )
        return ReplayDataset(root)

    return make
