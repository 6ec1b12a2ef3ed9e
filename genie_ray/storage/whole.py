"""Artefacts read and written as a whole, wherever they are stored.

An object store has no directories and no renaming, so a directory there is whole once its last file is: whoever writes
it names that file, and whoever reads it looks for that file.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from genie_ray.storage.paths import RemotePath, StoredPath


@contextmanager
def local_copy(path: StoredPath, *names: str) -> Iterator[Path]:
    """A file or directory on this machine's disk for a `with` block: itself, or a copy that is then removed.

    Args:
        path: a directory that is not there has an empty copy.
        names: of a directory, the files that are needed; none: all of them.
    """
    if isinstance(path, Path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="genie-ray-") as directory:
        copy = Path(directory) / path.name
        if path.is_file():
            path.download(copy)
        else:
            copy.mkdir()
            wanted = [path / name for name in names if (path / name).is_file()] if names else path.rglob("*")
            for file in wanted:
                target = copy / file.relative_to(path)
                target.parent.mkdir(parents=True, exist_ok=True)
                file.download(target)
        yield copy


@contextmanager
def read_copy(path: StoredPath, *names: str) -> Iterator[Path]:
    """As `local_copy`, but a ValueError of the block names where the file or directory is stored."""
    with local_copy(path, *names) as local:
        try:
            yield local
        except ValueError as error:
            if local == path:
                raise
            raise ValueError(str(error).replace(str(local), str(path))) from error


@contextmanager
def whole_directory(path: StoredPath, *, last: str) -> Iterator[Path]:
    """An empty local directory to fill, which becomes `path` after the block, and replaces what was there.

    After an error, what was there stays. `.tmp-…` beside a local path is what a killed writer left.

    Args:
        last: the file in it that is uploaded last; a directory on an object store without it is not whole.
    """
    if isinstance(path, RemotePath):
        with tempfile.TemporaryDirectory(prefix="genie-ray-") as directory:
            filled = Path(directory) / path.name
            filled.mkdir()
            yield filled
            _upload(filled, path, last)
        return
    filled = path.with_name(f".tmp-{path.name.partition('-')[0]}")
    shutil.rmtree(filled, ignore_errors=True)
    filled.mkdir(parents=True)
    yield filled
    remove(path)
    filled.rename(path)


def remove(path: StoredPath) -> None:
    """Removes a directory with all that is in it, if it is there."""
    if isinstance(path, Path):
        if path.exists():
            shutil.rmtree(path)
    elif path.is_dir():
        path.filesystem.delete_dir(path.path)


def copy_file(source: StoredPath, target: StoredPath) -> None:
    """Copies a file, as a whole; on the same object store, its content still passes through here."""
    with local_copy(source) as file:
        if isinstance(target, RemotePath):
            target.upload(file)
            return
        temporary = target.with_name(f".tmp-{target.name}")
        shutil.copy2(file, temporary)
        temporary.rename(target)


def _upload(source: Path, target: RemotePath, last: str) -> None:
    files = sorted(
        (path.relative_to(source) for path in source.rglob("*") if path.is_file()), key=lambda path: str(path) == last
    )
    assert str(files[-1]) == last, f"{target} gets no {last}"
    (target / last).unlink(missing_ok=True)  # from here on, what was there is not whole
    for directory in sorted({(target / file.as_posix()).parent for file in files}):
        directory.mkdir(parents=True, exist_ok=True)
    for file in files:
        (target / file.as_posix()).upload(source / file)
