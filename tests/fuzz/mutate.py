"""Damage to valid inputs: bytes, JSON values and texts. All of it is drawn from one NumPy generator."""

import bz2
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from numpy.random import Generator

Place = tuple[Any, ...]  # the keys and indices that lead to a part of a nested value

DEEP = "«deep»"  # becomes brackets nested so deeply that no parser follows them
JUNK: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 7, 255, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e-320, 1e308),
    *(
        float("nan"),
        float("inf"),
        -float("inf"),
        "",
        " ",
        "junk",
        "1",
        "0x10",
        "1e5",
        "nan",
        "null",
        "true",
        "x" * 9999,
    ),
    *("two\nlines", "NUL\0", "\ud800", "٣", "é", "../..", "/", "~", "\x1b[31m", "%s{0}", DEEP, "2026-13-45"),
    *([], [[]], [None], [1, 2], ["a"], [0.9, -1], [float("nan")], list(range(300)), {}, {"": {}}, {"a": 1}, {"a": {}}),
)
NUMBERS = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\xff\xff\xff\xff",
    b"\0\0\0\x80",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x01\0\0\0",
)


@cache
def bomb(kind: int) -> bytes:
    """256 MiB of zeros, packed as a member of a zip archive: by zipfile.ZIP_BZIP2 into a few hundred bytes."""
    if kind == zipfile.ZIP_BZIP2:
        return bz2.compress(bytes(1 << 28))
    pack = zlib.compressobj(wbits=-15)
    return pack.compress(bytes(1 << 28)) + pack.flush()


def bomb_archive(name: str, kind: int, size: int) -> bytes:
    """A zip archive with a bomb that says it has `size` bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, bomb(kind))
    content = bytearray(file.getvalue())
    central = content.rindex(b"PK\x01\x02")
    for at in (8, central + 10):
        content[at : at + 2] = kind.to_bytes(2, "little")
    for at in (22, central + 24):
        content[at : at + 4] = size.to_bytes(4, "little")
    return bytes(content)


def pick(rng: Generator, items: Sequence[Any]) -> Any:
    """One of the items, as it is (NumPy's own choice would convert it)."""
    return items[int(rng.integers(len(items)))]


def damaged_bytes(rng: Generator, content: bytes, first: int = 0, last: int | None = None) -> bytes:
    """One to four changes of the bytes from `first` on, before `last`."""
    head, body, tail = content[:first], bytearray(content[first:last]), content[last:] if last is not None else b""
    for _ in range(int(rng.integers(1, 5))):
        start = int(rng.integers(len(body) + 1))
        length = int(2 ** rng.uniform(0, 9))
        kind = int(rng.integers(7))
        if kind <= 1 and start < len(body):
            body[start] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            body[start : start + length] = rng.bytes(min(length, len(body) - start))
        elif kind == 3:
            number = pick(rng, NUMBERS)
            body[start : start + len(number)] = number
        elif kind == 4:
            del body[start : start + length]
        elif kind == 5:
            body[start:start] = body[start : start + length]
        elif kind == 6 and rng.random() < 0.3:
            del body[start:]
    return head + bytes(body) + tail


def damaged_text(rng: Generator, text: str) -> str:
    """As `damaged_bytes`, of a text; what is no UTF-8 any more is escaped."""
    return damaged_bytes(rng, text.encode(errors="surrogatepass")).decode(errors="backslashreplace")


def places(value: Any, above: Place = ()) -> Iterator[Place]:
    """The place of every part of a nested value, itself included."""
    yield above
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*above, key))


def damaged_value(rng: Generator, value: Any, junk: Sequence[Any] = JUNK) -> Any:
    """A copy of plain nested values with one to three parts replaced, removed, renamed, added, doubled or nudged."""
    value = _copied(value)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        place = pick(rng, list(places(value)))
        if not place:
            if rng.random() < 0.1:
                return pick(rng, junk)
            continue
        holder = value
        for key in place[:-1]:
            holder = holder[key]
        pick(rng, (_replace, _replace, _remove, _rename, _add, _double, _nudge, _nudge))(rng, holder, place[-1], junk)
    return value


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value


def _replace(rng: Generator, holder: Any, key: Any, junk: Sequence[Any]) -> None:
    holder[key] = _copied(pick(rng, junk))


def _remove(rng: Generator, holder: Any, key: Any, junk: Sequence[Any]) -> None:
    del holder[key]


def _rename(rng: Generator, holder: Any, key: Any, junk: Sequence[Any]) -> None:
    if isinstance(holder, dict):
        holder[damaged_text(rng, str(key))] = holder.pop(key)


def _add(rng: Generator, holder: Any, key: Any, junk: Sequence[Any]) -> None:
    if isinstance(holder, dict):
        holder[str(pick(rng, junk))[:50]] = _copied(pick(rng, junk))
    else:
        holder.insert(key, _copied(pick(rng, junk)))


def _double(rng: Generator, holder: Any, key: Any, junk: Sequence[Any]) -> None:
    holder[key] = [holder[key], _copied(holder[key])]


def _nudge(rng: Generator, holder: Any, key: Any, junk: Sequence[Any]) -> None:
    value = holder[key]
    if isinstance(value, bool) or value is None:
        holder[key] = not value
    elif isinstance(value, int | float):
        factor = pick(rng, (-1, 0, 0.5, 1, 2, 10, 1e6))
        changed = value * factor + pick(rng, (-1, 0, 1))
        holder[key] = int(changed) if isinstance(value, int) and abs(changed) < 1e300 else changed
    elif isinstance(value, str):
        holder[key] = damaged_text(rng, value)


def json_text(value: Any) -> str:
    """JSON, NaN and infinities included; `DEEP` as brackets."""
    return with_depth(json.dumps(value))


def with_depth(text: str) -> str:
    """The text with 20,000 nested lists wherever `DEEP` is, escaped and quoted or not."""
    for written in (json.dumps(DEEP), json.dumps(DEEP, ensure_ascii=False), DEEP):
        text = text.replace(written, "[" * 20_000 + "]" * 20_000)
    return text


def damaged_json(rng: Generator, value: Any, dump: Callable[[Any], str] = json_text) -> bytes:
    """A file of these values: mostly well-formed with wrong values, otherwise damaged as bytes."""
    text = dump(damaged_value(rng, value) if rng.random() < 0.8 else value).encode(errors="backslashreplace")
    return damaged_bytes(rng, text) if rng.random() < 0.25 else text
