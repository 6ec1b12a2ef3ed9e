"""Files: atomic writes, and reading YAML and JSON so that whatever is wrong with a text is told in one line.

The parsers alone do not tell: deep nesting exhausts Python's stack, odd tags raise any exception, a key given twice
counts once without a word, and a few lines of YAML aliases unfold to billions of values.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from genie_ray.base.errors import cause_of, one_line

if TYPE_CHECKING:
    from genie_ray.storage.paths import StoredPath

DEEPEST = 50  # levels of nesting
LARGEST = 100_000  # values, aliases unfolded
LONGEST = 200  # characters of a value in a message
LITTLE = 1 << 20  # free bytes; below, a disk is full for most of what is written
STYLE = Path(__file__).parent / "style.css"  # what all pages look like, served ones and files


def write_atomically(path: StoredPath, write: Callable[[Path], object]) -> None:
    """Calls `write` with a temporary path of the same suffix, then renames the file to `path`, or uploads it there."""
    if not isinstance(path, Path):
        with tempfile.TemporaryDirectory(prefix="genie-ray-") as directory:
            write(Path(directory) / path.name)
            path.upload(Path(directory) / path.name)
        return
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def told_if_full(output: StoredPath) -> Iterator[None]:
    """If the disk of a command's output, or of temporary files, is full, the error that follows says so.

    Most libraries then name no file, and some not even the reason: PyTorch's is that a stream's writer failed.

    Raises:
        OSError: one line, with the directory whose disk is full.
    """
    try:
        yield
    except Exception as error:
        cause = cause_of(error)
        said = getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(cause)
        if said and str(output) in str(cause):
            raise
        disks = [*([output] if isinstance(output, Path) else []), Path(tempfile.gettempdir())]
        full = [disk for disk in disks if _free_bytes(disk) < LITTLE]
        if not said and not (full and type(cause) is RuntimeError):
            raise
        message = f"disk full, not all is written: {full[0] if full else output}"
        raise OSError(errno.ENOSPC, f"{message}; with more space, the same command goes on") from error


def _free_bytes(path: Path) -> int:
    """Of the disk on which a file or directory is, or would be."""
    absolute = path.absolute()
    return shutil.disk_usage(next(place for place in (absolute, *absolute.parents) if place.exists())).free


def parse_yaml(text: str | bytes) -> Any:
    """The value of a YAML document.

    Raises:
        ValueError: one line; not YAML, a key that is given twice, or aliases that unfold to too much.
    """
    try:
        return yaml.load(text if isinstance(text, str) else text.decode(), _Loader)
    except UnicodeDecodeError as error:
        raise ValueError(f"not valid YAML: not UTF-8 text (byte {error.start})") from error
    except Exception as error:  # on malformed values of a tag, PyYAML's constructors raise all kinds of errors
        raise ValueError(f"not valid YAML: {shortened(one_line(error))}") from error


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON document.

    Raises:
        ValueError: one line; not JSON.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("not valid JSON: nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"not valid JSON: {one_line(error)}") from error


def parse_json_object(text: str | bytes) -> dict[str, Any]:
    """As `parse_json`, of a document that must be an object.

    Raises:
        ValueError: one line; not a JSON object.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object but {shown(value)}")
    return value


def shown(value: object) -> str:
    """A value's repr for a message; the middle is left out of a long one."""
    try:
        return shortened(repr(value))
    except ValueError:  # Python writes no integers of many thousand digits
        return (
            "a number of thousands of digits"
            if isinstance(value, int)
            else "values with numbers of thousands of digits"
        )


def shortened(text: str) -> str:
    """A text of at most 200 characters, without its middle if it is longer."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 4 :]}"


class _Loader(yaml.SafeLoader):
    """PyYAML's, but limited in depth and size, and strict about keys."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}  # of finished nodes, by identity

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError(f"nested more than {DEEPEST} levels deep")
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is None:
            return None
        if is_alias and id(node) not in self._sizes:
            raise ValueError("an alias refers to what it is in")
        if isinstance(node, yaml.MappingNode) and not is_alias:
            _check_keys(node)
        if not is_alias:
            children: list[Any] = [] if isinstance(node, yaml.ScalarNode) else node.value
            parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
            self._sizes[id(node)] = 1 + sum(self._sizes[id(part)] for part in parts)
        if self._sizes[id(node)] > LARGEST:
            raise ValueError(f"more than {LARGEST:,} values")
        return node


def _check_keys(node: yaml.MappingNode) -> None:
    """Refuses a key that is given twice. Keys that an alias is to bring are not there yet, and may be given anew."""
    written: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in written:
                raise ValueError(f"the key {shown(key.value)} is given twice, the second time in line {_line(key)}")
            written.add(key.value)


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1
