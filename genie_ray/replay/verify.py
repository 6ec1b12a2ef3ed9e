"""Checking a replay dataset file by file, down to every frame."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genie_ray.base.progress import notices, progress_bar
from genie_ray.base.session import usable_cpus
from genie_ray.replay.card import CARD_FILE
from genie_ray.replay.dataset import (
    EpisodeRef,
    count_differences,
    index_shard,
    layout_differences,
    read_footer,
    read_row_group,
)
from genie_ray.replay.metadata import METADATA_FILE, DatasetMetadata
from genie_ray.replay.schema import NO_ACTION, infos_of, update_digest
from genie_ray.replay.writer import CONTENT_KEY, TEMPORARY_PREFIX, read_metadata, shard_name, shard_paths
from genie_ray.storage.paths import Location, StoredPath, resolve


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something wrong with a file."""

    path: StoredPath
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def verify(root: Location) -> list[Problem]:
    """What is wrong with a dataset; an empty list if nothing is.

    Decodes every file and checks it against the schema, its own digest and `_dataset.json`; reports files that do not
    belong. Writers' temporary files are not a problem: readers skip them and the next writer removes them. Reads with
    one thread per core.
    """
    directory = resolve(root)
    try:
        metadata = read_metadata(directory)
    except ValueError as error:
        return [Problem(path=directory / METADATA_FILE, message=str(error))]
    shards = shard_paths(directory)
    problems = list(_strangers(directory, shards))
    for name in sorted((metadata.files or {}).keys() - set(map(shard_name, shards))):
        problems.append(Problem(path=directory / name, message="is lost"))
    episodes: dict[str, EpisodeRef] = {}
    with ThreadPoolExecutor(usable_cpus()) as pool, progress_bar("verify", len(shards), to=notices) as bar:
        checks = pool.map(lambda path: _check_shard(path, metadata), shards)
        for done, (path, (refs, messages)) in enumerate(zip(shards, checks, strict=True), start=1):
            for ref in refs:
                if ref.episode_id in episodes:
                    messages.append(f"episode {ref.episode_id} is in {episodes[ref.episode_id].path} too")
                episodes[ref.episode_id] = ref
            problems += [Problem(path=path, message=message) for message in messages]
            bar.update(done, problems=len(problems))
    for message in count_differences(episodes.values(), metadata):
        problems.append(Problem(path=directory / METADATA_FILE, message=message))
    return problems


def _strangers(root: StoredPath, shards: list[StoredPath]) -> Iterator[Problem]:
    expected = {*shards, root / METADATA_FILE, root / CARD_FILE}
    paths: list[StoredPath] = [*root.rglob("*")]
    for path in sorted(paths):
        if path.is_file() and path not in expected and not path.name.startswith(TEMPORARY_PREFIX):
            yield Problem(path=path, message="does not belong to a replay dataset")


def _check_shard(path: StoredPath, metadata: DatasetMetadata) -> tuple[list[EpisodeRef], list[str]]:
    """The episodes of a file, and what is wrong with it."""
    refs: list[EpisodeRef] = []
    messages: list[str] = []
    try:
        footer = read_footer(path, metadata)
        messages.extend(layout_differences(footer, metadata))
        refs = index_shard(path)
        messages.extend(_shard_problems(path, footer, refs, len(metadata.action_names)))
    except ValueError as error:
        messages.append(str(error))
    return refs, messages


def _shard_problems(
    path: StoredPath, footer: pq.FileMetaData, refs: list[EpisodeRef], action_count: int
) -> Iterator[str]:
    digest = hashlib.sha256()
    for ref in refs:
        table = read_row_group(path, ref.row_group)
        update_digest(digest, table)
        if len(table) != ref.length + 1:
            yield f"episode {ref.episode_id}: {len(table)} rows, its footer says {ref.length + 1}"
        for message in _episode_problems(table, action_count):
            yield f"episode {ref.episode_id}: {message}"
    if digest.hexdigest().encode() != (footer.metadata or {}).get(CONTENT_KEY):
        yield "its rows do not match their digest"


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
    try:
        infos_of(table)
    except ValueError as error:
        yield f"info is {error}"
