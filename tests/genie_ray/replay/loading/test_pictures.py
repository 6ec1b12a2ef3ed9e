"""Large frames in a dataset: stored, verified, and read as pictures, against a slow reader."""

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genie_ray.replay.dataset import ReplayDataset, count_episodes, index_episodes
from genie_ray.replay.layout import LargeFrameLayout
from genie_ray.replay.loading.pictures import PictureBatch, PictureLoader, iter_pictures
from genie_ray.replay.metadata import METADATA_FILE, DatasetMetadata
from genie_ray.replay.schema import Episode, LargeFrames, episode_to_table, table_to_episode
from genie_ray.replay.verify import verify
from genie_ray.replay.writer import read_metadata, write_metadata, write_shard

HERO = "Hero-Atari2600-v0"
LENGTHS = [40, 33, 25, 300, 7, 61, 1, 52]
LAYOUT = LargeFrameLayout(size=12, every=3)


@pytest.fixture
def make_large(make_episode) -> Callable[..., Episode]:
    """Episodes whose large frames are random, but pixel [0, 0] holds (index, step // 256, step % 256)."""

    def make(index: int, length: int, layout: LargeFrameLayout = LAYOUT) -> Episode:
        steps = np.arange(0, length + 1, layout.every)
        rng = np.random.default_rng(1000 + index)
        frames = rng.integers(256, size=(len(steps), layout.size, layout.size, 3), dtype=np.uint8)
        frames[:, 0, 0] = np.stack([np.full_like(steps, index), steps // 256, steps % 256], axis=1)
        return make_episode(index, length, large_frames=LargeFrames(frames=frames, every=layout.every))

    return make


def finish(root: Path, layout: LargeFrameLayout | None = LAYOUT) -> ReplayDataset:
    metadata = DatasetMetadata(
        action_names=("RIGHT", "LEFT", "UP", "DOWN", "JUMP"),
        frame_shape=(4, 6, 3),
        policy="random",
        counts=count_episodes(index_episodes(root)),
        large_frames=layout,
    )
    write_metadata(root, metadata)
    return ReplayDataset(root)


@pytest.fixture
def dataset(tmp_path: Path, make_large) -> ReplayDataset:
    for first in range(0, len(LENGTHS), 3):
        write_shard(
            tmp_path, HERO, str(first), [make_large(i, LENGTHS[i]) for i in range(first, min(first + 3, len(LENGTHS)))]
        )
    return finish(tmp_path)


def slow_pictures(dataset: ReplayDataset) -> list[tuple[bytes, bytes]]:
    """Frame and large frame of every row that has one, read through Python objects."""
    rows = [pq.ParquetFile(ref.path).read_row_group(ref.row_group).to_pylist() for ref in dataset.episodes]
    return [(row["frame"], row["large_frame"]) for row in itertools.chain(*rows) if row["large_frame"] is not None]


def pictures_of(batch: PictureBatch) -> list[tuple[bytes, bytes]]:
    pairs = zip(batch["frames_BHWC"].numpy(), batch["large_BHWC"].numpy(), strict=True)
    return [(frame.tobytes(), large.tobytes()) for frame, large in pairs]


def epoch_of(loader: PictureLoader, epoch: int = 0) -> list[tuple[bytes, bytes]]:
    loader.load_state_dict({"epoch": epoch, "examples": 0})
    batches = itertools.takewhile(lambda _: loader.state_dict()["epoch"] == epoch, loader)
    return [picture for batch in batches for picture in pictures_of(batch)]


def test_large_frames_through_parquet_are_bit_identical(dataset: ReplayDataset, make_large) -> None:
    for index, ref in enumerate(dataset.episodes):
        written, episode = make_large(index, LENGTHS[index]), dataset.read(ref)
        np.testing.assert_array_equal(episode.large_frames.frames, written.large_frames.frames)
        np.testing.assert_array_equal(episode.frames, written.frames)
        assert episode.large_frames.layout == LAYOUT
    assert verify(dataset.root) == []
    assert read_metadata(dataset.root).large_frames == LAYOUT


def test_only_every_third_row_has_one_and_only_where_asked_for(make_episode, make_large) -> None:
    with_them, without = episode_to_table(make_large(0, 20)), episode_to_table(make_episode(0, 20))
    assert with_them.drop_columns("large_frame").equals(without)
    assert "large_frame" not in without.schema.names
    there = [value is not None for value in with_them["large_frame"].to_pylist()]
    assert there == [step % 3 == 0 for step in range(21)]
    assert table_to_episode(without, game=HERO).large_frames is None


def test_a_dataset_from_before_there_were_large_frames_is_read(make_dataset) -> None:
    dataset = make_dataset([20, 20])
    values = json.loads((dataset.root / METADATA_FILE).read_text())
    assert values.pop("large_frames") is None
    (dataset.root / METADATA_FILE).write_text(json.dumps(values))
    assert ReplayDataset(dataset.root).metadata == dataset.metadata
    assert verify(dataset.root) == []
    for read in (
        lambda: PictureLoader(dataset, split="all", batch_size=1, seed=0),
        lambda: next(iter_pictures(dataset, "all", batch_size=1)),
    ):
        with pytest.raises(ValueError, match=r"has no large frames: collect with collection\.large_frame_every"):
            read()


def test_ordered_pass_equals_slow_reading(dataset: ReplayDataset) -> None:
    batches = list(iter_pictures(dataset, "all", batch_size=7))
    assert [picture for batch in batches for picture in pictures_of(batch)] == slow_pictures(dataset)
    assert {len(batch["games"]) for batch in batches[:-1]} == {7}
    assert {game for batch in batches for game in batch["games"]} == {HERO}
    for batch in batches:
        assert batch["frames_BHWC"].shape[1:] == (4, 6, 3)
        assert batch["large_BHWC"].shape[1:] == (12, 12, 3)
        assert (batch["frames_BHWC"][:, 0, 0] == batch["large_BHWC"][:, 0, 0]).all()  # of the same episode and step
    some = [
        picture for batch in iter_pictures(dataset, "all", batch_size=4, limit=10) for picture in pictures_of(batch)
    ]
    every = slow_pictures(dataset)
    assert some == [every[i * len(every) // 10] for i in range(10)]


@pytest.mark.parametrize("shuffle_buffer", [1, 16, 10_000])
def test_epoch_holds_every_picture_once_in_another_order(dataset: ReplayDataset, shuffle_buffer: int) -> None:
    loader = PictureLoader(dataset, split="all", batch_size=5, seed=0, shuffle_buffer=shuffle_buffer)
    every = slow_pictures(dataset)
    first, second = epoch_of(loader, 0), epoch_of(loader, 1)
    assert len(first) == len(set(first)) == len(every) // 5 * 5
    assert set(first) <= set(every)
    assert first != second
    assert first != [picture for picture in every if picture in set(first)]


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_an_epoch(dataset: ReplayDataset, world_size: int) -> None:
    ranks = [
        epoch_of(PictureLoader(dataset, split="all", batch_size=4, seed=1, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert len({len(pictures) for pictures in ranks}) == 1
    seen = list(itertools.chain(*ranks))
    assert len(seen) == len(set(seen)) == len(slow_pictures(dataset)) // (4 * world_size) * 4 * world_size


@pytest.mark.parametrize("taken", [0, 3, 22, 23, 50])
def test_resumes_exactly_and_follows_its_seed(dataset: ReplayDataset, taken: int) -> None:
    """Also across blocks, at the end of an epoch (22 batches) and in the next one."""

    def make(seed: int = 0) -> PictureLoader:
        return PictureLoader(dataset, split="all", batch_size=8, seed=seed, shuffle_buffer=24)

    unbroken, resumed = make(), make()
    for _ in range(taken):
        next(unbroken)
    next(resumed)  # wherever it was
    resumed.load_state_dict(unbroken.state_dict())
    for _ in range(30):
        assert pictures_of(next(resumed)) == pictures_of(next(unbroken))
        assert resumed.state_dict() == unbroken.state_dict()
    assert pictures_of(next(make(seed=1))) != pictures_of(next(make()))


def test_splits_share_no_picture(dataset: ReplayDataset) -> None:
    train, validation = (
        set(epoch_of(PictureLoader(dataset, split=split, batch_size=1, seed=0))) for split in ("train", "validation")
    )
    assert not train & validation
    assert train | validation == set(slow_pictures(dataset))
    with pytest.raises(
        ValueError, match=r"split 'all' of .* has 179 large frames: fewer than one batch of 100 for each"
    ):
        PictureLoader(dataset, split="all", batch_size=100, seed=0, world_size=2)


def test_what_does_not_fit_is_refused(tmp_path: Path, make_episode, make_large) -> None:
    for frames in (np.zeros((7, 12, 12, 3)), np.zeros((7, 12, 10, 3), np.uint8), np.zeros((7, 12, 12), np.uint8)):
        with pytest.raises(ValueError, match=r"large frames are .*: must be uint8 \[M, L, L, 3\]"):
            LargeFrames(frames=frames, every=3)
    six = LargeFrames(frames=np.zeros((6, 12, 12, 3), np.uint8), every=3)
    with pytest.raises(ValueError, match="has 6 large frames: with one every 3 steps, 20 actions have 7"):
        make_episode(0, 20, large_frames=six)
    with pytest.raises(ValueError, match="every of large frames is 0"):
        LargeFrameLayout(size=12, every=0)
    other = LargeFrameLayout(size=12, every=4)
    for second in (make_episode(1, 20), make_large(1, 20, other)):
        with pytest.raises(ValueError, match="differ in shape from the shard's first"):
            write_shard(tmp_path, HERO, "0", [make_large(0, 20), second])
    write_shard(tmp_path, HERO, "0", [make_large(0, 20)])
    for layout in (None, other):
        with pytest.raises(ValueError, match=rf"0\.parquet: large frames are .*: {METADATA_FILE} says"):
            finish(tmp_path, layout)
        assert any("large frames are" in problem.message for problem in verify(tmp_path))


def test_missing_moved_and_changed_large_frames_are_found(dataset: ReplayDataset, make_large, relist) -> None:
    path = dataset.episodes[-1].path
    table = episode_to_table(make_large(7, LENGTHS[7]))
    values = table["large_frame"].to_pylist()
    column = table.schema.get_field_index("large_frame")
    changed = bytes([values[0][0] ^ 1]) + values[0][1:]
    footer = {**(pq.read_schema(path).metadata or {})}
    for broken, told in {
        "missing": ([None, *values[1:]], "are not 12×12 pixels at every step 3·n"),
        "moved": ([None, values[0], *values[2:]], "are not 12×12 pixels at every step 3·n"),
        "cut": ([values[0][:-1], *values[1:]], "are not 12×12 pixels at every step 3·n"),
        "changed": ([changed, *values[1:]], "its rows do not match their digest"),
    }.values():
        rows = table.set_column(column, table.field(column), pa.array(broken, pa.large_binary()))
        pq.write_table(rows.replace_schema_metadata(footer), path, row_group_size=len(rows))
        relist(dataset.root)
        assert any(told in problem.message and problem.path == path for problem in verify(dataset.root))
    pq.write_table(
        table.set_column(column, table.field(column), pa.array([None, *values[1:]], pa.large_binary())), path
    )
    with pytest.raises(ValueError, match=r"damaged file .*, row group 0: large frames are not"):
        dataset.read_pictures(dataclasses.replace(dataset.episodes[-1], row_group=0))
