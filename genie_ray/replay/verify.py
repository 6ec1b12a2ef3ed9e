"""Checking a replay dataset file by file, down to every frame."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genie_ray.replay.dataset import EpisodeRef, count_differences, index_shard, read_row_group, shard_paths
from genie_ray.replay.schema import NO_ACTION, frame_shape_of, large_frame_layout_of, update_digest
from genie_ray.replay.writer import CONTENT_KEY, METADATA_FILE, TEMPORARY_PREFIX, DatasetMetadata, read_metadata


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong with a file."""

    path: Path
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def verify(root: str | os.PathLike[str]) -> list[Problem]:
    """What is wrong with a dataset; an empty list if nothing is.

    Decodes every file and checks it against the schema, its own digest and `_dataset.json`; names files that do not
    belong. Temporary files of writers are no problem: readers pass over them and the next writer sweeps them.
    """
    directory = Path(root)
    try:
        metadata = read_metadata(directory)
    except ValueError as error:
        return [Problem(path=directory / METADATA_FILE, message=str(error))]
    shards = shard_paths(directory)
    problems = list(_strangers(directory, shards))
    episodes: dict[str, EpisodeRef] = {}
    for path in shards:
        try:
            refs = index_shard(path)
            for ref in refs:
                if ref.episode_id in episodes:
                    message = f"episode {ref.episode_id} is in {episodes[ref.episode_id].path} too"
                    problems.append(Problem(path=path, message=message))
                episodes[ref.episode_id] = ref
            problems += [Problem(path=path, message=message) for message in _shard_problems(path, refs, metadata)]
        except ValueError as error:
            problems.append(Problem(path=path, message=str(error)))
    for message in count_differences(episodes.values(), metadata):
        problems.append(Problem(path=directory / METADATA_FILE, message=message))
    return problems


def _strangers(root: Path, shards: list[Path]) -> Iterator[Problem]:
    expected = {*shards, root / METADATA_FILE}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path not in expected and not path.name.startswith(TEMPORARY_PREFIX):
            yield Problem(path=path, message="does not belong to a replay dataset")


def _shard_problems(path: Path, refs: list[EpisodeRef], metadata: DatasetMetadata) -> Iterator[str]:
    footer = pq.read_metadata(path)
    schema = footer.schema.to_arrow_schema()
    frame_shape, large_frames = frame_shape_of(schema), large_frame_layout_of(schema)
    if frame_shape != metadata.frame_shape:
        yield f"frames are {frame_shape}: {METADATA_FILE} says {metadata.frame_shape}"
    if large_frames != metadata.large_frames:
        yield f"large frames are {large_frames}: {METADATA_FILE} says {metadata.large_frames}"
    digest = hashlib.sha256()
    for ref in refs:
        table = read_row_group(path, ref.row_group)
        update_digest(digest, table)
        for message in _episode_problems(table, len(metadata.action_names)):
            yield f"episode {ref.episode_id}: {message}"
    if digest.hexdigest().encode() != (footer.metadata or {}).get(CONTENT_KEY):
        yield "its rows are not those that were written"


def _episode_problems(table: pa.Table, action_count: int) -> Iterator[str]:
    steps, actions = table["step"].to_numpy(), table["action"].to_numpy()
    if not np.array_equal(steps, np.arange(len(steps))):
        yield "steps are not 0, 1, 2, …"
    if actions[-1] != NO_ACTION:
        yield f"the last row has action {actions[-1]}, not {NO_ACTION}"
    if not np.all((actions[:-1] >= 0) & (actions[:-1] < action_count)):
        yield f"actions are not all from 0 to {action_count - 1}"
    for name in ("terminated", "truncated"):
        if table[name].to_numpy()[:-1].any():
            yield f"{name} before its last row"
