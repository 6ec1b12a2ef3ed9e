"""Datasets: their index, the held-out split, the content hash."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genie_ray.replay.dataset import ReplayDataset, is_held_out, whole_of
from genie_ray.replay.writer import write_shard

HERO, KANGAROO = "Hero-Atari2600-v0", "Kangaroo-Atari2600-v0"


def test_episodes_are_sorted_whatever_file_they_are_in(tmp_path, make_episode, finish) -> None:
    write_shard(tmp_path, HERO, "b", [make_episode(2), make_episode(0)])
    write_shard(tmp_path, HERO, "a", [make_episode(1, length=3)])
    dataset = finish(tmp_path)
    assert [(ref.episode_id[-1], ref.path.stem, ref.row_group, ref.length) for ref in dataset.episodes] == [
        ("0", "b", 1, 20),
        ("1", "a", 0, 3),
        ("2", "b", 0, 20),
    ]
    for index, ref in enumerate(dataset.episodes):
        assert ref.game == HERO
        frames, actions = dataset.read_frames_and_actions(ref)
        assert frames[0, 0, 0, 0] == index
        np.testing.assert_array_equal(frames, dataset.read(ref).frames)
        np.testing.assert_array_equal(actions, [*dataset.read(ref).actions, -1])


def test_one_in_a_hundred_is_held_out() -> None:
    ids = [f"{HERO}/random/0/{index:06d}" for index in range(20_000)]
    held_out = sum(map(is_held_out, ids))
    assert 140 < held_out < 260  # 200 ± 4.3 standard deviations
    assert sum(is_held_out(episode, fraction=0.5) for episode in ids) > 9_700


def test_split_depends_on_ids_alone_and_leaves_out_no_game(make_dataset) -> None:
    make_dataset([2] * 300, per_shard=100)
    make_dataset([2], game="Airstriker-Genesis-v0")
    dataset = make_dataset([2, 2], game=KANGAROO)
    train, validation = dataset.split("train"), dataset.split("validation")
    assert sorted(train + validation) == dataset.split("all") == dataset.episodes
    by_hash = [ref for ref in dataset.episodes if ref.game == HERO and is_held_out(ref.episode_id)]
    assert by_hash
    assert [ref for ref in validation if ref.game == HERO] == by_hash
    assert sum(ref.game == KANGAROO for ref in validation) == 1  # of two, one
    assert sum(ref.game == KANGAROO for ref in train) == 1
    assert [ref.game for ref in validation + train].count("Airstriker-Genesis-v0") == 1
    assert "Airstriker-Genesis-v0" in {ref.game for ref in train}  # of one, none is held out


def test_a_game_with_fifteen_episodes_has_three_held_out(make_dataset) -> None:
    dataset = make_dataset([2] * 14, game=KANGAROO)
    assert sum(ref.game == KANGAROO for ref in dataset.split("validation")) == 2  # a fifth
    dataset = make_dataset([2] * 16)
    assert sum(ref.game == HERO for ref in dataset.split("validation")) == 3


def test_pieces_of_an_episode_are_not_parted(make_dataset, make_episode, tmp_path, finish) -> None:
    """Else a model is validated on the rest of an episode that it has learned from."""
    episodes = [make_episode(2)] * 40
    names = [f"{HERO}/random/0/{number:06d}{piece}" for number in range(10) for piece in ("", "+1", "+2", "+3")]
    pieces = [dataclasses.replace(episode, episode_id=name) for episode, name in zip(episodes, names, strict=True)]
    write_shard(tmp_path, HERO, "00000", pieces)
    dataset = finish(tmp_path)
    held_out = {whole_of(ref.episode_id) for ref in dataset.split("validation")}
    assert len(held_out) == 2  # a fifth of ten
    assert len(dataset.split("validation")) == 8
    assert held_out.isdisjoint(whole_of(ref.episode_id) for ref in dataset.split("train"))


def test_content_hash_follows_content_not_place_or_time(tmp_path, make_episode, make_dataset, finish) -> None:
    dataset = make_dataset([20] * 4)
    original = dataset.content_hash()
    copy = tmp_path.with_name(f"{tmp_path.name}-copy")
    shutil.copytree(tmp_path, copy)
    assert ReplayDataset(copy).content_hash() == original

    frames = make_episode(3).frames.copy()
    frames[7, 2, 3, 1] ^= 8  # a change that leaves the file's size as it is
    write_shard(copy, HERO, "00003", [make_episode(3, frames=frames)])
    names = {path.relative_to(tmp_path): path.stat().st_size for path in tmp_path.rglob("*.parquet")}
    assert {path.relative_to(copy): path.stat().st_size for path in copy.rglob("*.parquet")} == names
    assert finish(copy).content_hash() != original
    write_shard(copy, HERO, "00003", [make_episode(3)])
    assert finish(copy).content_hash() == original


def test_reads_past_temporary_files(tmp_path, make_dataset) -> None:
    dataset = make_dataset([20])
    (tmp_path / f"game={HERO}" / ".tmp-00001.parquet").write_bytes(b"half")
    assert ReplayDataset(tmp_path).episodes == dataset.episodes


def test_missing_or_empty_dataset_is_named(tmp_path, finish) -> None:
    with pytest.raises(ValueError, match=r"no replay dataset in .*: .*_dataset\.json is missing"):
        ReplayDataset(tmp_path)
    with pytest.raises(ValueError, match="holds no episodes"):
        finish(tmp_path)


def test_damaged_and_foreign_files_are_named(tmp_path, make_dataset, relist) -> None:
    make_dataset([20] * 4)
    bad = tmp_path / f"game={HERO}" / "00003.parquet"
    whole = bad.read_bytes()
    for content in (whole[: len(whole) // 2], b""):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged or foreign file .*00003\.parquet"):
            ReplayDataset(tmp_path)
    pq.write_table(pa.table({"x": [1, 2]}), bad)
    with pytest.raises(
        ValueError, match=r"foreign file .*00003\.parquet: its footer is not the one that _dataset\.json"
    ):
        ReplayDataset(tmp_path)
    relist(tmp_path)
    with pytest.raises(ValueError, match=r"foreign file .*00003\.parquet: not a file of a replay dataset"):
        ReplayDataset(tmp_path)


def test_damage_within_a_file_is_named_when_read(tmp_path, make_dataset) -> None:
    dataset = make_dataset([20])
    path = dataset.episodes[0].path
    content = bytearray(path.read_bytes())
    frames = pq.read_metadata(path).row_group(0).column(2)
    content[frames.data_page_offset : frames.data_page_offset + 200] = bytes(200)
    path.write_bytes(content)
    damaged = ReplayDataset(tmp_path)
    with pytest.raises(ValueError, match=r"damaged file .*00000\.parquet, row group 0"):
        damaged.read_frames_and_actions(damaged.episodes[0])


def test_lost_added_and_doubled_shards_are_named(tmp_path, make_dataset, relist) -> None:
    make_dataset([20] * 6)
    shard: Path = tmp_path / f"game={HERO}" / "00003.parquet"
    again = shard.with_stem("again")
    shutil.copy(shard, again)
    with pytest.raises(ValueError, match=r"file .*again\.parquet: _dataset\.json does not list it"):
        ReplayDataset(tmp_path)
    relist(tmp_path)
    with pytest.raises(ValueError, match=r"000003 is in .*00003\.parquet and again in .*again\.parquet"):
        ReplayDataset(tmp_path)
    again.unlink()
    shard.unlink()
    with pytest.raises(ValueError, match=rf"has lost game={HERO}/00003\.parquet"):
        ReplayDataset(tmp_path)
    relist(tmp_path)
    with pytest.raises(ValueError, match="Hero-Atari2600-v0 has 3 episodes with 60 actions, expected 6 with 120"):
        ReplayDataset(tmp_path)


def test_a_file_under_another_game_is_named(tmp_path, make_dataset, relist) -> None:
    make_dataset([20])
    make_dataset([20], game=KANGAROO)
    hero, kangaroo = (tmp_path / f"game={game}" / "00000.parquet" for game in (HERO, KANGAROO))
    swapped = hero.read_bytes(), kangaroo.read_bytes()
    kangaroo.write_bytes(swapped[0])
    hero.write_bytes(swapped[1])
    relist(tmp_path)
    with pytest.raises(ValueError, match=rf"game={HERO}/00000\.parquet: episode {KANGAROO}/random/0/000000 is not of"):
        ReplayDataset(tmp_path)


def test_a_game_of_a_dataset_is_as_a_dataset_without_the_others(tmp_path, make_episode, finish) -> None:
    for number, game in enumerate((HERO, KANGAROO)):
        write_shard(tmp_path / "both", game, "00000", [make_episode(number, game=game, length=7 + number)])
    write_shard(tmp_path / "one", KANGAROO, "00000", [make_episode(1, game=KANGAROO, length=8)])
    both, alone = finish(tmp_path / "both"), finish(tmp_path / "one")
    part = ReplayDataset(both.root, game=KANGAROO)
    assert [ref.episode_id for ref in part.episodes] == [ref.episode_id for ref in alone.episodes]
    assert part.metadata.counts == alone.metadata.counts
    assert part.content_hash() == alone.content_hash() != both.content_hash()
    with pytest.raises(ValueError, match=f"both has no play of Pong, but of {HERO}, {KANGAROO}"):
        ReplayDataset(both.root, game="Pong")
