"""What a job takes along: the code and presets of this clone, and nothing else."""

from __future__ import annotations

import fnmatch
import shutil
from pathlib import Path

LIST = Path("clusters") / "travels.txt"
MOST_BYTES = 100 * 2**20  # Ray's own limit of a working directory


def find_root(start: Path) -> Path:
    """The clone that `start` lies in.

    Raises:
        ValueError: it lies in none.
    """
    for directory in (start, *start.parents):
        if (directory / LIST).is_file():
            return directory
    raise ValueError(f"{start} is not in a clone of GenieRay: neither it nor a directory above has {LIST}")


def travelling(root: Path) -> list[Path]:
    """The files that travel, relative to the root, by the patterns of `travels.txt`.

    A line names what travels; one that begins with `!` what does not. `#` begins a comment.

    Raises:
        ValueError: a pattern matches nothing, or all together are too large.
    """
    lines = [line.partition("#")[0].strip() for line in (root / LIST).read_text().splitlines()]
    excluded = [line[1:] for line in lines if line.startswith("!")]
    files: dict[Path, int] = {}
    for pattern in (line for line in lines if line and not line.startswith("!")):
        matched = [path for path in root.glob(pattern) if path.is_file() and not path.is_symlink()]
        if not matched:
            raise ValueError(f"{LIST}: {pattern!r} matches nothing in {root}")
        for path in matched:
            relative = path.relative_to(root)
            if not any(fnmatch.fnmatch(relative.as_posix(), each) for each in excluded):
                files[relative] = path.stat().st_size
    if (total := sum(files.values())) > MOST_BYTES:
        largest = max(files, key=lambda path: files[path])
        raise ValueError(
            f"what travels with a job has {total / 2**20:.0f} MiB; allowed: {MOST_BYTES // 2**20} MiB. The largest "
            f"file is {largest} ({files[largest] / 2**20:.0f} MiB): leave it out in {LIST}"
        )
    return sorted(files)


def pack(root: Path, into: Path) -> int:
    """Copies what travels; returns its size in bytes."""
    size = 0
    for path in travelling(root):
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / path, target)
        size += target.stat().st_size
    return size
