"""A replay dataset's files, on a disk or an object store: opening them and reading their ends."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.parquet as pq

from genie_ray.storage.paths import StoredPath

MAGIC = b"PAR1"  # how Parquet files begin and end
FIRST_READ = 1 << 16  # bytes: most footers are smaller, and each read of an object store is a request


def open_parquet(path: StoredPath) -> pq.ParquetFile:
    """A Parquet file, opened for reading with page checksums verified.

    Raises:
        OSError or pyarrow.ArrowException: not a Parquet file, or a damaged one.
    """
    if isinstance(path, Path):
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
    return pq.ParquetFile(path.path, filesystem=path.filesystem, page_checksum_verification=True)


def file_size(path: StoredPath) -> int:
    """The size in bytes."""
    if isinstance(path, Path):
        return path.stat().st_size
    return path.filesystem.get_file_info(path.path).size


def read_footer_bytes(path: StoredPath) -> bytes:
    """A Parquet file from its footer to its end: the footer, its length as 4 bytes little-endian, `PAR1`.

    Raises:
        ValueError: not a Parquet file, or one that is cut off.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(-min(FIRST_READ, size), os.SEEK_END)
        tail = file.read()
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] != MAGIC or length > size:
            raise ValueError(f"damaged or foreign file {path}: not a Parquet file, or cut off")
        if length > len(tail):
            file.seek(-length, os.SEEK_END)
            tail = file.read()
        return tail[-length:]
