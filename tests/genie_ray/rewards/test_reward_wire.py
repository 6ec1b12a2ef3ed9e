"""An invalid request body is refused in one line, however it is damaged."""

import io
import tracemalloc
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from genie_ray.rewards.http import wire
from genie_ray.rewards.http.api import HttpConfig


def test_a_small_file_that_unpacks_to_a_large_one_is_refused() -> None:

    file = io.BytesIO()
    np.savez_compressed(file, frames_0=np.zeros(10_000_000, np.uint8), actions_0=np.zeros(1, int))
    assert len(file.getvalue()) < 20_000
    with pytest.raises(ValueError, match="unpacks to 100"):
        wire.unpack_question(file.getvalue(), max_bytes=1_000_000)


def damaged_archives() -> Iterator[bytes]:
    """Each fails in a different way."""
    file = io.BytesIO()
    np.savez_compressed(file, frames_0=np.zeros((6, 8, 8, 3), np.uint8), actions_0=np.arange(5))
    whole = file.getvalue()
    yield whole[:-30]
    yield whole[:60] + bytes(20) + whole[80:]  # zlib.error or a wrong checksum
    method, flags = whole.index(b"PK\x01\x02") + 10, whole.index(b"PK\x01\x02") + 8
    yield whole[:method] + b"\x63\x00" + whole[method + 2 :]  # NotImplementedError
    yield whole[:flags] + b"\x01\x00" + whole[flags + 2 :]  # encrypted: RuntimeError
    for content in (b"no array", whole, b"\x93NUMPY\x01\x00\x05\x00{'a'\n"):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("frames_0.npy", content)
        yield file.getvalue()
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**45,)})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("frames_0.npy", header.getvalue())  # more than any memory
    yield file.getvalue()


def test_no_more_is_unpacked_than_a_file_says() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("frames_0.npy", bytes(1 << 26))
    content = bytearray(file.getvalue())
    content[(at := content.rindex(b"PK\x01\x02") + 24) : at + 4] = (100).to_bytes(4, "little")
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"is not an \.npz file"):
        wire.unpack_question(bytes(content), max_bytes=1_000_000)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_numpy_does_not_write_are_refused() -> None:
    for kind, names, reason in (
        (zipfile.ZIP_BZIP2, ("frames_0.npy", "actions_0.npy"), "packed in another way"),  # unpacks without a limit
        (zipfile.ZIP_STORED, ("frames_0.npy", "frames_0.npy"), "two arrays have the same name"),
    ):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", kind) as archive:
            for name in names:
                archive.writestr(name, b"")
        with pytest.raises(ValueError, match=reason):
            wire.unpack_question(file.getvalue(), max_bytes=1_000_000)


@pytest.mark.parametrize("body", damaged_archives())
def test_damaged_archives_are_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"the body is not an \.npz file: ") as told:
        wire.unpack_question(body, max_bytes=1_000_000)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("episodes", [np.array("a"), np.array([["a"]]), np.array([1])])
def test_episodes_are_a_list_of_text(episodes: np.ndarray) -> None:
    body = wire._pack({"frames_0": np.zeros(3), "actions_0": np.zeros(2), "episodes": episodes})
    with pytest.raises(ValueError, match=r"episodes have shape .*; allowed: \[fragments\], text"):
        wire.unpack_question(body, max_bytes=1_000_000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"host": "0.0.0.0"}, "host is 0.0.0.0 and no token is set"),
        ({"token": "short"}, "has 5 characters; allowed: 16 or more"),
        ({"port": 0}, "port is 0"),
    ],
)
def test_http_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HttpConfig(**settings)
    assert HttpConfig(host="::1").token is None
