"""Episodes to Parquet and back; writers that fail."""

import errno
import json
import os
from dataclasses import replace

import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from genie_ray.replay.card import CARD_FILE, GENERATED
from genie_ray.replay.layout import arrow_schema
from genie_ray.replay.metadata import METADATA_FILE, DatasetMetadata, GameCounts, MissingPlay
from genie_ray.replay.schema import Episode, episode_id, episode_to_table, table_to_episode
from genie_ray.replay.writer import read_metadata, write_metadata, write_shard

HERO = "Hero-Atari2600-v0"


def assert_same(a: Episode, b: Episode) -> None:
    assert vars(a).keys() == vars(b).keys()
    for name, value in vars(a).items():
        if isinstance(value, np.ndarray):
            assert value.dtype == getattr(b, name).dtype
            np.testing.assert_array_equal(value, getattr(b, name))
        else:
            assert value == getattr(b, name)


def test_columns_are_the_documented_ones() -> None:
    types = {field.name: str(field.type) for field in arrow_schema((64, 64, 3))}
    assert types == {
        "episode_id": "string",
        "step": "int32",
        "frame": "fixed_size_binary[12288]",
        "action": "int8",
        "action_logp": "float",
        "reward_env": "float",
        "reward_uncertainty": "float",
        "terminated": "bool",
        "truncated": "bool",
        "info": "string",
    }


def test_episode_through_parquet_is_bit_identical(tmp_path, make_episode, finish) -> None:
    uncertainty = np.full(20, np.nan, np.float32)  # undefined before step 4
    uncertainty[4:] = np.linspace(0, 1, 16)
    written = [
        make_episode(0, reward_uncertainty=uncertainty),
        make_episode(1, length=1, action_logp=None, reward_uncertainty=None),
        make_episode(2, length=700, infos=[{}] * 701),
    ]
    write_shard(tmp_path, HERO, "0", written)
    dataset = finish(tmp_path)
    assert [ref.length for ref in dataset.episodes] == [20, 1, 700]
    for ref, episode in zip(dataset.episodes, written, strict=True):
        assert_same(dataset.read(ref), episode)


def test_last_observation_is_a_row_without_an_action(tmp_path, make_episode) -> None:
    uncertainty = np.array([np.nan, 0.5], np.float32)
    episode = make_episode(0, length=2, reward_uncertainty=uncertainty)
    rows = pq.read_table(write_shard(tmp_path, HERO, "0", [episode])).to_pydict()
    assert rows["step"] == [0, 1, 2]
    assert rows["action"] == [*episode.actions.tolist(), -1]
    assert rows["reward_env"] == [*episode.reward_env.tolist(), None]
    assert rows["action_logp"][-1] is None
    assert rows["reward_uncertainty"] == [None, 0.5, None]
    assert rows["terminated"] == [False, False, True]
    assert rows["truncated"] == [False, False, False]
    assert rows["frame"] == [frame.tobytes() for frame in episode.frames]


def test_infos_keep_numpy_integers_and_refuse_frames(make_episode) -> None:
    infos = [{"lives": np.uint8(3), "score": np.int64(2**40), "x": np.float32(0.5)}] * 2
    episode = table_to_episode(episode_to_table(make_episode(0, length=1, infos=infos)), game=HERO)
    assert episode.infos == [{"lives": 3, "score": 2**40, "x": 0.5}] * 2
    with pytest.raises(TypeError, match="info holds a ndarray"):
        episode_to_table(make_episode(0, length=1, infos=[{"native_frame": np.zeros((2, 2, 3), np.uint8)}] * 2))


def test_episode_refuses_arrays_that_do_not_fit(make_episode) -> None:
    with pytest.raises(ValueError, match=r"infos of episode .* fits 19 actions: it has 20"):
        make_episode(0, infos=[{}] * 20)
    with pytest.raises(ValueError, match=r"frames of episode .* are float64 \[21, 4, 6, 3\]: must be uint8"):
        make_episode(0, frames=np.zeros((21, 4, 6, 3)))
    with pytest.raises(ValueError, match="has no action"):
        make_episode(0, actions=np.zeros(0, np.int8))


def test_episode_ids_sort_as_they_were_played() -> None:
    ids = [episode_id(HERO, "random", 7, index) for index in (2, 10, 100)]
    assert ids == sorted(ids)
    assert ids[0] == "Hero-Atari2600-v0/random/7/000002"


def test_one_episode_per_row_group_compressed_without_a_dictionary(tmp_path, make_episode) -> None:
    footer = pq.read_metadata(write_shard(tmp_path, HERO, "0", [make_episode(0), make_episode(1, length=7)]))
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [21, 8]
    frames = footer.row_group(0).column(2)
    assert frames.path_in_schema == "frame"
    assert frames.compression == "ZSTD"
    assert not {"RLE_DICTIONARY", "PLAIN_DICTIONARY"} & set(frames.encodings)


def test_frames_that_repeat_cost_almost_nothing(tmp_path, make_episode) -> None:
    """Why pages span several MB: zstd sees that frame 500 occurred before."""
    rng = np.random.default_rng(0)
    two = rng.integers(256, size=(2, 64, 64, 3), dtype=np.uint8)
    path = write_shard(tmp_path, HERO, "0", [make_episode(0, length=599, frames=two[np.arange(600) % 2])])
    assert pq.read_metadata(path).row_group(0).column(2).total_compressed_size < 0.01 * 600 * 12288


def test_same_episodes_same_bytes(tmp_path, make_episode) -> None:
    paths = [write_shard(tmp_path / name, HERO, "0", [make_episode(0), make_episode(1)]) for name in "ab"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_failure_while_writing_leaves_what_was_there(tmp_path, make_episode) -> None:
    def dying():
        yield make_episode(0)
        raise RuntimeError("worker died")

    with pytest.raises(RuntimeError, match="worker died"):
        write_shard(tmp_path, HERO, "0", dying())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    path = write_shard(tmp_path, HERO, "0", [make_episode(5)])
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="worker died"):
        write_shard(tmp_path, HERO, "0", dying())
    assert path.read_bytes() == before
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]


def test_full_disk_is_one_line_and_leaves_no_file(tmp_path, make_episode, monkeypatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"disk full, not written: .*/0\.parquet$") as error:
        write_shard(tmp_path, HERO, "0", [make_episode(0)])
    assert error.value.errno == errno.ENOSPC
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_shard_appears_only_once_it_is_on_disk(tmp_path, make_episode, monkeypatch) -> None:
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: calls.append(name) or real(*args))
    write_shard(tmp_path, HERO, "0", [make_episode(0)])
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, the directory that holds the name


def test_sweeps_what_a_killed_writer_of_this_shard_left(tmp_path, make_episode) -> None:
    directory = tmp_path / f"game={HERO}"
    directory.mkdir()
    own, others = directory / ".tmp-0.killed", directory / ".tmp-00.running"
    own.touch()
    others.touch()
    write_shard(tmp_path, HERO, "0", [make_episode(0)])
    assert not own.exists()
    assert others.exists()


def test_refuses_episodes_that_do_not_belong_together(tmp_path, make_episode) -> None:
    with pytest.raises(ValueError, match=r"is of Hero-Atari2600-v0: this shard is of Kangaroo-Atari2600-v0"):
        write_shard(tmp_path, "Kangaroo-Atari2600-v0", "0", [make_episode(0)])
    other = make_episode(1, length=1, frames=np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="differ in shape"):
        write_shard(tmp_path, HERO, "0", [make_episode(0), other])
    with pytest.raises(ValueError, match="at least one episode"):
        write_shard(tmp_path, HERO, "0", [])
    with pytest.raises(ValueError, match=r"shard name is '\.\./0'"):
        write_shard(tmp_path, HERO, "../0", [make_episode(0)])


def test_metadata_round_trip_and_damage(tmp_path) -> None:
    metadata = DatasetMetadata(
        action_names=("RIGHT", "JUMP"),
        frame_shape=(64, 64, 3),
        policy="random",
        policy_checkpoint="ab12",
        config={"seed": 3},
        counts={HERO: GameCounts(episodes=2, actions=1400)},
    )
    path = write_metadata(tmp_path, metadata)
    assert read_metadata(tmp_path) == replace(metadata, files={})
    assert {p.name for p in tmp_path.iterdir()} == {METADATA_FILE, CARD_FILE}

    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"schema_version": 99}))
    with pytest.raises(ValueError, match=r"_dataset\.json.*schema version is 99: must be 1"):
        read_metadata(tmp_path)
    for damaged in ("", "[]", json.dumps({k: v for k, v in values.items() if k != "counts"})):
        path.write_text(damaged)
        with pytest.raises(ValueError, match=r"damaged .*_dataset\.json"):
            read_metadata(tmp_path)


def test_a_card_is_written_and_what_a_person_wrote_stays(tmp_path) -> None:
    metadata = DatasetMetadata(
        action_names=("RIGHT", "JUMP"),
        frame_shape=(64, 64, 3),
        policy="explorer",
        config={"seed": 3},
        counts={HERO: GameCounts(episodes=2, actions=1400)},
        missing={HERO: MissingPlay(unit="steps", ranges=((0, 5),), reason="its emulator died")},
    )
    write_metadata(tmp_path, metadata)
    card = tmp_path / CARD_FILE
    text = card.read_text()
    assert f"| {HERO} | 2 | 1,400 |" in text
    for told in ("Played by: explorer", "RIGHT, JUMP", '"seed": 3', f"{HERO}: its emulator died"):
        assert told in text
    write_metadata(tmp_path, replace(metadata, missing={}))
    assert "its emulator died" not in card.read_text()
    card.write_text(text.replace(GENERATED, "Written by hand."))
    write_metadata(tmp_path, replace(metadata, missing={}))
    assert "Written by hand." in card.read_text()


def test_any_parquet_reader_opens_it(tmp_path, make_episode) -> None:
    """With the game as a Hive partition."""
    write_shard(tmp_path, HERO, "0", [make_episode(0)])
    table = pyarrow.dataset.dataset(tmp_path, partitioning="hive").to_table()
    assert table["game"].to_pylist() == [HERO] * 21
