"""Verification finds what is wrong and names the file."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from genie_ray.replay.metadata import METADATA_FILE
from genie_ray.replay.schema import episode_to_table
from genie_ray.replay.verify import verify
from genie_ray.replay.writer import write_shard

HERO = "Hero-Atari2600-v0"


def found(root: Path) -> list[tuple[str, str]]:
    return [(problem.path.name, problem.message) for problem in verify(root)]


def test_whole_dataset_has_no_problem(tmp_path, make_dataset) -> None:
    make_dataset([20] * 5)
    make_dataset([20] * 2, game="Kangaroo-Atari2600-v0")
    (tmp_path / f"game={HERO}" / ".tmp-00009.killed").touch()
    assert found(tmp_path) == []


def test_unfinished_dataset(tmp_path, make_episode) -> None:
    write_shard(tmp_path, HERO, "0", [make_episode(0)])
    ((name, message),) = found(tmp_path)
    assert name == METADATA_FILE
    assert "is missing" in message


def test_truncated_and_lost_files(tmp_path, make_dataset) -> None:
    make_dataset([20] * 9)
    directory = tmp_path / f"game={HERO}"
    truncated = directory / "00003.parquet"
    truncated.write_bytes(truncated.read_bytes()[:-100])
    (directory / "00006.parquet").unlink()
    lost, (name, message), counts = found(tmp_path)
    assert lost == ("00006.parquet", "is lost")
    assert name == "00003.parquet"
    assert "damaged or foreign file" in message
    assert counts == (METADATA_FILE, f"{HERO} has 3 episodes with 60 actions, expected 9 with 180")


def test_foreign_files(tmp_path, make_dataset, relist) -> None:
    make_dataset([20])
    pq.write_table(pa.table({"x": [1]}), tmp_path / f"game={HERO}" / "table.parquet")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "elsewhere.parquet").touch()
    problems = dict(found(tmp_path))
    assert problems.keys() == {"table.parquet", "notes.txt", "elsewhere.parquet"}
    assert problems["notes.txt"] == "does not belong to a replay dataset"
    assert f"{METADATA_FILE} does not list it" in problems["table.parquet"]
    relist(tmp_path)
    assert "not a file of a replay dataset" in dict(found(tmp_path))["table.parquet"]


def test_doubled_episode(tmp_path, make_dataset, make_episode, relist) -> None:
    make_dataset([20] * 2)
    write_shard(tmp_path, HERO, "more", [make_episode(1)])
    relist(tmp_path)
    ((name, message),) = found(tmp_path)
    assert name == "more.parquet"
    assert message.startswith(f"episode {HERO}/random/0/000001 is in ")
    assert message.endswith("00000.parquet too")


def test_wrong_count(tmp_path, make_dataset, make_episode, relist) -> None:
    make_dataset([20] * 2)
    write_shard(tmp_path, HERO, "more", [make_episode(2)])
    relist(tmp_path)
    assert found(tmp_path) == [(METADATA_FILE, f"{HERO} has 3 episodes with 60 actions, expected 2 with 40")]


def test_a_strange_name_is_told_in_one_line(tmp_path, make_dataset) -> None:
    make_dataset([20] * 2)
    file = tmp_path / METADATA_FILE
    file.write_text(file.read_text().replace(f'"{HERO}":', '"a\\u0085b":'))
    messages = [message for _, message in found(tmp_path)]
    assert r"'a\x85b' has 0 episodes with 0 actions, expected 2 with 40" in messages
    assert all(len(message.splitlines()) == 1 for message in messages)


@pytest.mark.parametrize("column", [2, 3, 9])
def test_flipped_bits_anywhere_in_a_column(tmp_path, make_dataset, column: int) -> None:
    """Found even where the codec notices nothing: the pages have checksums."""
    path = make_dataset([200, 200]).episodes[0].path
    chunk = pq.read_metadata(path).row_group(1).column(column)
    content = path.read_bytes()
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    for position in np.linspace(start + chunk.total_compressed_size // 2, start + chunk.total_compressed_size - 1, 5):
        damaged = bytearray(content)
        damaged[int(position)] ^= 0x10
        path.write_bytes(damaged)
        assert {name for name, _ in found(tmp_path)} == {"00000.parquet"}


def rewrite(path: Path, table: pa.Table) -> None:
    """Put a table in place of a shard, as a program other than the writer would."""
    pq.write_table(table, path, row_group_size=len(table))


def test_rows_that_are_not_an_episode(tmp_path, make_dataset, make_episode, relist) -> None:
    path = make_dataset([4]).episodes[0].path
    table = episode_to_table(make_episode(0, length=4))
    broken = {
        "steps are not 0, 1, 2, …": ("step", [0, 1, 3, 2, 4]),
        "the last row has action 2, not -1": ("action", [0, 1, 2, 3, 2]),
        "actions are not all from 0 to 4": ("action", [0, 1, 5, 3, -1]),
        "terminated before its last row": ("terminated", [False, True, False, False, True]),
        "truncated before its last row": ("truncated", [True, False, False, False, False]),
    }
    for message, (column, values) in broken.items():
        index = table.schema.get_field_index(column)
        rewrite(path, table.set_column(index, table.field(index), pa.array(values, table.field(index).type)))
        relist(tmp_path)
        assert (path.name, f"episode {HERO}/random/0/000000: {message}") in found(tmp_path)


def test_frames_of_another_size(tmp_path, make_dataset, make_episode, relist) -> None:
    make_dataset([1, 1], per_shard=1)
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    write_shard(tmp_path, HERO, "00001", [make_episode(1, length=1, frames=frames)])
    relist(tmp_path)
    assert found(tmp_path) == [("00001.parquet", f"frames are (8, 8, 3): {METADATA_FILE} says (4, 6, 3)")]


def test_row_group_of_two_episodes(tmp_path, make_dataset, make_episode, relist) -> None:
    path = make_dataset([20, 20]).episodes[0].path
    rewrite(path, pa.concat_tables([episode_to_table(make_episode(i)) for i in range(2)]))
    relist(tmp_path)
    assert (path.name, f"damaged or foreign file {path}: row group 0 is not one episode") in found(tmp_path)
