"""Where replay datasets are stored: a local or mounted disk, or anything that pyarrow reaches by URI.

A path without a scheme, or with `file://`, is a `pathlib.Path`. Any other URI (`s3://`, `gs://`, `abfs://`, `hdfs://`,
or `fsspec+<protocol>://` for an fsspec file system) is a `RemotePath`, which has the part of pathlib's interface that a
dataset needs. pyarrow's file systems look up credentials and regions in the environment, in configuration files, or in
the URI's query (`s3://bucket/data?region=eu-central-1`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Literal

import pyarrow.parquet as pq
from pyarrow import fs

MAGIC = b"PAR1"  # how Parquet files begin and end
FIRST_READ = 1 << 16  # bytes: most footers are smaller, and each read of an object store is a request


@dataclass(frozen=True, order=True)
class RemotePath:
    """A file or directory that is not on a disk."""

    scheme: str  # s3, gs, hdfs, …
    path: str  # within the file system; an object store's begins with the bucket
    filesystem: fs.FileSystem = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(self.scheme, f"{self.path.rstrip('/')}/{name}", self.filesystem)

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.path).name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return PurePosixPath(self.path).stem

    @property
    def parent(self) -> RemotePath:
        """The directory that it is in."""
        return RemotePath(self.scheme, str(PurePosixPath(self.path).parent), self.filesystem)

    def relative_to(self, root: RemotePath) -> PurePosixPath:
        """The path relative to a directory."""
        return PurePosixPath(self.path).relative_to(root.path)

    def is_file(self) -> bool:
        """Whether there is a file of this name."""
        return self.filesystem.get_file_info(self.path).type == fs.FileType.File

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the file."""
        if self.is_file() or not missing_ok:
            self.filesystem.delete_file(self.path)

    def mkdir(self, *, parents: Literal[True], exist_ok: Literal[True]) -> None:
        """Make the directory, where the file system has directories."""
        self.filesystem.create_dir(self.path, recursive=True)

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """The file, for random-access reading."""
        return self.filesystem.open_input_file(self.path)

    def read_text(self) -> str:
        """The whole file, in UTF-8."""
        with self.open("rb") as file:
            return file.read().decode()

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """The matching files, exactly as many levels below as the pattern has parts; uses one listing."""
        for path in self.rglob("*"):
            way = path.relative_to(self)
            if len(way.parts) == pattern.count("/") + 1 and way.match(pattern):
                yield path

    def rglob(self, pattern: Literal["*"]) -> Iterator[RemotePath]:
        """All files below this directory."""
        below = fs.FileSelector(self.path, recursive=True, allow_not_found=True)
        for entry in self.filesystem.get_file_info(below):
            if entry.type == fs.FileType.File:
                yield RemotePath(self.scheme, entry.path, self.filesystem)

    def upload(self, source: Path) -> None:
        """Upload a local file to this path. In an object store it appears only when complete."""
        fs.copy_files(
            str(source), self.path, source_filesystem=fs.LocalFileSystem(), destination_filesystem=self.filesystem
        )


DatasetPath = Path | RemotePath
Location = str | os.PathLike[str] | RemotePath
"""How functions accept a dataset's location: a path, a URI, or an already resolved path."""


def resolve(location: Location) -> DatasetPath:
    """The path that a location stands for; local paths become absolute.

    Raises:
        ValueError: no file system has the URI's scheme.
        OSError: the file system cannot be reached.
    """
    if isinstance(location, RemotePath):
        return location
    if not isinstance(location, str) or "://" not in location:
        return Path(location).absolute()
    scheme = location.partition("://")[0]
    try:
        filesystem, path = fs.FileSystem.from_uri(location)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{location}: {error}") from error
    return Path(path) if scheme == "file" else RemotePath(scheme, path, filesystem)


def open_parquet(path: DatasetPath) -> pq.ParquetFile:
    """A Parquet file, opened for reading with page checksums verified.

    Raises:
        OSError or pyarrow.ArrowException: not a Parquet file, or a damaged one.
    """
    if isinstance(path, Path):
        return pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
    return pq.ParquetFile(path.path, filesystem=path.filesystem, page_checksum_verification=True)


def file_size(path: DatasetPath) -> int:
    """The size in bytes."""
    if isinstance(path, Path):
        return path.stat().st_size
    return path.filesystem.get_file_info(path.path).size


def read_footer_bytes(path: DatasetPath) -> bytes:
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
