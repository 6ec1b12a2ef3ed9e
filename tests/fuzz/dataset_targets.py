"""Targets: a replay dataset's `_dataset.json`, the bytes of its Parquet files, and Parquet files with other content."""

import contextlib
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.random import Generator

from genie_ray.replay.dataset import ReplayDataset, count_episodes, index_episodes
from genie_ray.replay.metadata import METADATA_FILE, DatasetMetadata
from genie_ray.replay.schema import Episode, episode_id, episode_to_table, update_digest
from genie_ray.replay.summary import summarize
from genie_ray.replay.verify import verify
from genie_ray.replay.writer import CONTENT_KEY, read_metadata, write_metadata, write_shard
from tests.fuzz.judging import Check, accepted
from tests.fuzz.mutate import JUNK, damaged_bytes, damaged_json, json_text, pick

GAME, SHAPE, NAMES = "Hero-Atari2600-v0", (4, 6, 3), ("RIGHT", "LEFT", "JUMP")


def dataset_metadata(directory: Path) -> Check:
    """`_dataset.json`."""
    values = json.loads((_dataset(directory) / METADATA_FILE).read_text())
    whole = _everything(directory)

    def check(rng: Generator) -> None:
        (directory / METADATA_FILE).write_bytes(damaged_json(rng, values))
        _read_all(directory, whole)

    return check


def parquet_bytes(directory: Path) -> Check:
    """The bytes of a Parquet file."""
    (shard,) = _dataset(directory).glob("*/*.parquet")
    content, whole = shard.read_bytes(), _everything(directory)
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")

    def check(rng: Generator) -> None:
        first = footer if rng.random() < 0.5 else 0
        shard.write_bytes(damaged_bytes(rng, content, first))
        _read_all(directory, whole)

    return check


def parquet_tables(directory: Path) -> Check:
    """Well-formed Parquet files that another program wrote, listed with their digests."""
    (shard,) = _dataset(directory).glob("*/*.parquet")
    metadata = read_metadata(directory)
    tables = [episode_to_table(_episode(index)) for index in range(2)]

    def check(rng: Generator) -> None:
        try:
            _write_foreign(rng, shard, tables)
        except pa.ArrowException:  # no program could write this one
            return
        write_metadata(directory, metadata)
        accepted(lambda: _everything(directory))
        _verify(directory)

    return check


def _read_all(directory: Path, whole: list[Any]) -> None:
    """The readers return what was written or refuse; if they refuse, `verify` does too."""
    read = accepted(lambda: _everything(directory))
    problems = _verify(directory)
    assert problems if read is None else read[0] == whole, "accepted other content, or verify missed a refusal"


def _verify(directory: Path) -> list[Any]:
    with contextlib.redirect_stderr(io.StringIO()):
        problems = verify(directory)
        for problem in problems:
            assert len(str(problem).splitlines()) == 1, f"a problem of several lines: {problem}"
    return problems


def _everything(root: Path) -> list[Any]:
    """What the readers return, but for what only describes the play: policy, config, missing games, names."""
    dataset = ReplayDataset(root)
    found: list[Any] = []
    for ref in dataset.episodes:
        episode = dataset.read(ref)
        frames, actions = dataset.read_frames_and_actions(ref)
        found += [ref.episode_id, ref.length, episode.terminated, episode.truncated, episode.infos, frames.tobytes()]
        arrays = (episode.frames, episode.actions, episode.action_logp, episode.reward_env, episode.reward_uncertainty)
        found += [actions.tobytes(), *(array.tobytes() for array in arrays if array is not None)]
    with contextlib.redirect_stderr(io.StringIO()):
        summarize(dataset)
    return found


def _dataset(root: Path) -> Path:
    """Two episodes in one file."""
    write_shard(root, GAME, "0", [_episode(0), _episode(1)])
    counts = count_episodes(index_episodes(root))
    write_metadata(root, DatasetMetadata(action_names=NAMES, frame_shape=SHAPE, policy="random", counts=counts))
    return root


def _episode(index: int, length: int = 12) -> Episode:
    rng = np.random.default_rng(index)
    return Episode(
        episode_id=episode_id(GAME, "random", 0, index),
        game=GAME,
        frames=rng.integers(256, size=(length + 1, *SHAPE), dtype=np.uint8),
        actions=rng.integers(len(NAMES), size=length).astype(np.int8),
        action_logp=rng.standard_normal(length).astype(np.float32),
        reward_env=rng.standard_normal(length).astype(np.float32),
        reward_uncertainty=None,
        terminated=index == 0,
        truncated=index == 1,
        infos=[{"lives": 3, "score": step} for step in range(length + 1)],
    )


def _write_foreign(rng: Generator, path: Path, tables: list[pa.Table]) -> None:
    """Writes the episodes, one of them changed, as `write_shard` does."""
    changed = pick(rng, CHANGES)(rng, tables[1])
    path.unlink(missing_ok=True)
    schema_of_all = changed.schema if rng.random() < 0.5 else tables[0].schema
    digest = hashlib.sha256()
    with pq.ParquetWriter(path, schema_of_all, compression="zstd", write_statistics=bool(rng.random() < 0.9)) as writer:
        for table in (tables[0], changed):
            if table.schema.equals(schema_of_all, check_metadata=True):
                with contextlib.suppress(Exception):  # of a table that could never have been written
                    update_digest(digest, table)
                writer.write_table(table, row_group_size=pick(rng, (max(len(table), 1), 1000, 5)))
        writer.add_key_value_metadata({CONTENT_KEY: digest.hexdigest().encode()})


def _other_metadata(rng: Generator, table: pa.Table) -> pa.Table:
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    key = pick(rng, ("schema_version", "frame_shape", "large_frames"))
    metadata[key] = (
        json_text(pick(rng, JUNK)) if rng.random() < 0.7 else str(pick(rng, ("[4, 6]", "[2, 12, 3]", "{", "")))
    )
    return table.replace_schema_metadata({key: value.encode(errors="replace") for key, value in metadata.items()})


def _other_column(rng: Generator, table: pa.Table) -> pa.Table:
    index = int(rng.integers(len(table.schema)))
    field, length = table.schema.field(index), len(table)
    kind = rng.random()
    if kind < 0.3:
        return table.remove_column(index)
    if kind < 0.5:
        return table.append_column("more", pa.array([1] * length))
    if kind < 0.8:
        column = pick(rng, ([None] * length, ["x"] * length, [1] * length, [[1]] * length, [b"x" * 72] * length))
        return table.set_column(index, field.name, pa.array(column))
    return table.set_column(index, field.with_type(pa.string()), pa.array(["1"] * length))


def _other_values(rng: Generator, table: pa.Table) -> pa.Table:
    name, length = pick(rng, table.schema.names), len(table)
    values = table[name].to_pylist()
    others: dict[str, tuple[Any, ...]] = {
        "episode_id": (f"{GAME}/random/0/000000", f"{GAME}", GAME + "/", "", "a/b/c/d", GAME + "/\n", None),
        "step": (-1, 0, 2**31 - 1),
        "action": (-1, 3, 127, -128),
        "info": ("", "{", "[]", "null", "3", '{"lives": NaN}', '{"x": [1]}', "[" * 20_000, '{"player_x": "a"}', "\n"),
    }
    for _ in range(pick(rng, (1, 3, length))):
        row = int(rng.integers(length))
        values[row] = pick(rng, others.get(name, (None, values[0])))
    if name == "episode_id" and rng.random() < 0.7:
        values = [values[-1]] * length
    field = table.schema.field(name).with_nullable(True)
    column = pa.array(values, field.type)
    return table.set_column(table.schema.names.index(name), table.schema.field(name), column)


def _other_rows(rng: Generator, table: pa.Table) -> pa.Table:
    rows = pick(rng, ([0], [], [len(table) - 1], [*range(len(table))][::-1], [0, 0], [*range(len(table))] * 2))
    return table.take(pa.array(rows, pa.int64()))


CHANGES: tuple[Callable[[Generator, pa.Table], pa.Table], ...] = (
    _other_metadata,
    _other_column,
    _other_values,
    _other_values,
    _other_rows,
)
