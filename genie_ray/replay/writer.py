"""Writing a replay dataset: a directory of Parquet files, partitioned by game, with `_dataset.json` beside them.

    <root>/_dataset.json
    <root>/game=Kangaroo-Atari2600-v0/<shard>.parquet      one episode per row group

The root is a directory or a URI (see storage.py). A shard gets its name once it is complete and on disk, or is uploaded
to an object store in one piece, so a file that exists is complete. `_dataset.json` holds the number of episodes in the
dataset and a digest of every file's footer. It is written after the shards it counts; a dataset without it is
unfinished. So `_dataset.json` vouches for the footers, each footer for its file's rows, and pages also have checksums.
"""

import errno
import hashlib
import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from genie_ray.base.files import parse_json_object, shortened, shown
from genie_ray.replay.card import CARD_FILE, GENERATED, dataset_card
from genie_ray.replay.layout import SCHEMA_VERSION
from genie_ray.replay.metadata import METADATA_FILE, DatasetMetadata
from genie_ray.replay.schema import PIXEL_COLUMNS, Episode, episode_to_table, schema_of, update_digest
from genie_ray.replay.storage import read_footer_bytes
from genie_ray.storage.paths import Location, RemotePath, StoredPath, resolve

TEMPORARY_PREFIX = ".tmp-"
CONTENT_KEY = b"content_sha256"  # of a shard's rows, in its footer
PAGE_BYTES = 8 << 20  # a page spans hundreds of frames, so that zstd finds repetitions
ROWS_PER_BATCH = 64  # rows between checks of a page's size


def write_shard(root: Location, game: str, shard: str, episodes: Iterable[Episode]) -> StoredPath:
    """Write episodes of one game atomically as `game=<game>/<shard>.parquet`, and return that path.

    Episodes are written as they come, one in memory at a time. A shard of the same name is replaced. Leftovers of a
    killed writer of this shard are removed.

    Raises:
        ValueError: an invalid shard name, no episodes, an episode of another game, or one whose frame shape or large
            frames differ from the first's.
        OSError: the disk is full or not writable.
    """
    if not re.fullmatch(r"[\w-]+", shard):
        raise ValueError(f"shard name is {shard!r}: allowed are letters, digits, '-' and '_'")
    directory = resolve(root) / f"game={game}"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{shard}.parquet"
    with _whole_or_not_at_all(path) as temporary:
        _write_row_groups(temporary, game, episodes)
    return path


def write_metadata(root: Location, metadata: DatasetMetadata) -> StoredPath:
    """Write `_dataset.json` atomically, with the digests of the existing shards, and return its path.

    Raises:
        ValueError: a file is not a shard; the message names it.
    """
    directory = resolve(root)
    files = {shard_name(path): footer_digest(read_footer_bytes(path)) for path in shard_paths(directory)}
    path = directory / METADATA_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(asdict(replace(metadata, files=files)), indent=2) + "\n")
    card = directory / CARD_FILE
    if not card.is_file() or GENERATED in card.read_text():  # never overwrite what a person wrote
        write_text(card, dataset_card(metadata))
    return path


def write_text(path: StoredPath, text: str) -> None:
    """Write a text file as a whole."""
    with _whole_or_not_at_all(path) as temporary:
        temporary.write_text(text)


def read_metadata(root: Location) -> DatasetMetadata:
    """Read `_dataset.json`.

    Raises:
        ValueError: it is missing, damaged or of another version; the message names the file.
    """
    path = resolve(root) / METADATA_FILE
    if not path.is_file():
        raise ValueError(f"no replay dataset in {root}: {path} is missing")
    try:
        text = path.read_text()
        version = parse_json_object(text).get("schema_version")
        if version != SCHEMA_VERSION:
            raise ValueError(f"schema version is {shown(version)}: must be {SCHEMA_VERSION}")
        return TypeAdapter(DatasetMetadata).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = shortened(" ".join(".".join(map(str, first["loc"])).split()))
        raise ValueError(f"damaged {path}: {place}: {first['msg'].lower()}") from error
    except ValueError as error:
        raise ValueError(f"damaged {path}: {error}") from error


def shard_paths(root: Location) -> list[StoredPath]:
    """The complete shards under a directory, sorted."""
    paths = resolve(root).glob("game=*/*.parquet")
    return sorted(path for path in paths if not path.name.startswith(TEMPORARY_PREFIX))


def shard_name(path: StoredPath) -> str:
    """A shard's name in `_dataset.json`: `game=<game>/<shard>.parquet`."""
    return f"{path.parent.name}/{path.name}"


def footer_digest(footer: bytes) -> str:
    """SHA-256 of the end of a file, in hexadecimal."""
    return hashlib.sha256(footer).hexdigest()


def _write_row_groups(path: Path, game: str, episodes: Iterable[Episode]) -> None:
    digest = hashlib.sha256()
    writer: pq.ParquetWriter | None = None
    schema: pa.Schema | None = None
    try:
        for episode in episodes:
            if episode.game != game:
                raise ValueError(f"episode {episode.episode_id} is of {episode.game}: this shard is of {game}")
            table = episode_to_table(episode)
            if writer is None:
                schema = schema_of(episode)
                writer = pq.ParquetWriter(
                    path,
                    schema,
                    compression="zstd",
                    compression_level=3,
                    use_dictionary=[name for name in schema.names if name not in PIXEL_COLUMNS],
                    write_statistics=["episode_id", "step"],  # a dataset's index is built from these
                    data_page_size=PAGE_BYTES,
                    write_batch_size=ROWS_PER_BATCH,
                    write_page_checksum=True,  # verified by every read
                )
            elif not table.schema.equals(schema, check_metadata=True):
                raise ValueError(f"frames of episode {episode.episode_id} differ in shape from the shard's first")
            update_digest(digest, table)
            writer.write_table(table, row_group_size=len(table))
        if writer is None:
            raise ValueError("a shard needs at least one episode")
        writer.add_key_value_metadata({CONTENT_KEY: digest.hexdigest().encode()})
    finally:
        if writer is not None:
            writer.close()


@contextmanager
def _whole_or_not_at_all(path: StoredPath) -> Iterator[Path]:
    """A temporary path to write to, renamed to `path` once its content is on disk; removed after a failure."""
    if isinstance(path, RemotePath):
        with tempfile.TemporaryDirectory() as directory:
            temporary = Path(directory) / path.name
            yield temporary
            path.upload(temporary)
        return
    for leftover in path.parent.glob(f"{TEMPORARY_PREFIX}{path.stem}.*"):
        leftover.unlink(missing_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{path.stem}.{uuid.uuid4().hex}")
    try:
        yield temporary
        _fsync(temporary)
        os.replace(temporary, path)
        _fsync(path.parent)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OSError(errno.ENOSPC, f"disk full, not written: {path}") from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
