"""Paths of artefacts: on a local or mounted disk, or anything that pyarrow reaches by URI.

A path without a scheme, or with `file://`, is a `pathlib.Path`. Any other URI (`s3://`, `gs://`, `abfs://`, `hdfs://`,
or `fsspec+<protocol>://` for an fsspec file system) is a `RemotePath`, which has the part of pathlib's interface that
artefacts need. It is no `os.PathLike`: what would take it for a file on this disk fails instead. pyarrow's file systems
look up credentials and regions in the environment, in configuration files, or in the URI's query
(`s3://bucket/data?region=eu-central-1`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from pyarrow import fs

WILD = frozenset("*?[")


@dataclass(frozen=True, order=True)
class RemotePath:
    """A file or directory that is not on a disk. A directory is there if a file is in it."""

    scheme: str  # s3, gs, hdfs, …
    path: str  # within the file system; an object store's begins with the bucket
    filesystem: fs.FileSystem = field(compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"

    def __truediv__(self, name: str | PurePosixPath) -> RemotePath:
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
    def suffix(self) -> str:
        """The last part's suffix."""
        return PurePosixPath(self.path).suffix

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts within the file system."""
        return PurePosixPath(self.path).parts

    @property
    def parent(self) -> RemotePath:
        """The directory that it is in."""
        return RemotePath(self.scheme, str(PurePosixPath(self.path).parent), self.filesystem)

    def relative_to(self, root: RemotePath) -> PurePosixPath:
        """The path relative to a directory."""
        return PurePosixPath(self.path).relative_to(root.path)

    def resolve(self) -> RemotePath:
        """Itself: there is nothing that it is relative to."""
        return self

    def absolute(self) -> RemotePath:
        """Itself."""
        return self

    def exists(self) -> bool:
        """Whether there is a file of this name, or one in a directory of this name."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is a file of this name."""
        return self.filesystem.get_file_info(self.path).type == fs.FileType.File

    def is_dir(self) -> bool:
        """Whether there is a file in a directory of this name."""
        return next(self.rglob("*"), None) is not None

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

    def read_bytes(self) -> bytes:
        """The whole file."""
        with self.open("rb") as file:
            return file.read()

    def read_text(self) -> str:
        """The whole file, in UTF-8."""
        return self.read_bytes().decode()

    def write_bytes(self, content: bytes) -> None:
        """Write the whole file. In an object store it appears only when complete."""
        with self.filesystem.open_output_stream(self.path) as file:
            file.write(content)

    def write_text(self, text: str) -> None:
        """Write the whole file, in UTF-8."""
        self.write_bytes(text.encode())

    def iterdir(self) -> Iterator[RemotePath]:
        """What is directly in this directory: files, and directories of files."""
        yield from (RemotePath(self.scheme, entry.path, self.filesystem) for entry in self._listed(recursive=False))

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        """The matching files, exactly as many levels below as the pattern has parts; uses one listing."""
        first, _, rest = pattern.partition("/")
        if rest and not WILD & set(first):
            yield from (self / first).glob(rest)
            return
        for path in self.rglob("*"):
            way = path.relative_to(self)
            if len(way.parts) == pattern.count("/") + 1 and way.match(pattern):
                yield path

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        """The files below this directory whose names match."""
        for entry in self._listed(recursive=True):
            if entry.type == fs.FileType.File and PurePosixPath(entry.path).match(pattern):
                yield RemotePath(self.scheme, entry.path, self.filesystem)

    def upload(self, source: Path) -> None:
        """Upload a local file to this path. In an object store it appears only when complete."""
        fs.copy_files(
            str(source), self.path, source_filesystem=fs.LocalFileSystem(), destination_filesystem=self.filesystem
        )

    def download(self, target: Path) -> None:
        """Download the file to a local path."""
        fs.copy_files(
            self.path, str(target), source_filesystem=self.filesystem, destination_filesystem=fs.LocalFileSystem()
        )

    def _listed(self, *, recursive: bool) -> list[fs.FileInfo]:
        return self.filesystem.get_file_info(fs.FileSelector(self.path, recursive=recursive, allow_not_found=True))


StoredPath = Path | RemotePath
Location = str | os.PathLike[str] | RemotePath
"""How functions accept an artefact's location: a path, a URI, or an already resolved path."""


def resolve(location: Location) -> StoredPath:
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


def found(directory: StoredPath, pattern: str) -> list[StoredPath]:
    """The files that match, sorted."""
    paths: list[StoredPath] = list(directory.glob(pattern))
    return sorted(paths, key=str)


def entries(directory: StoredPath) -> list[StoredPath]:
    """What is directly in a directory, sorted; nothing if it is not there."""
    paths: list[StoredPath] = list(directory.iterdir()) if directory.is_dir() else []
    return sorted(paths, key=str)


def resolve_in(location: str, stores: Mapping[str, fs.FileSystem]) -> StoredPath:
    """As `resolve`, but what is stored under a known scheme is reached by that file system, credentials and all."""
    scheme, _, path = location.partition("://")
    return RemotePath(scheme, path, stores[scheme]) if scheme in stores else resolve(location)
