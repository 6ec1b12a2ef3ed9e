"""Target: requests to the reward service over HTTP."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import Generator

from genie_ray.rewards.http import wire
from genie_ray.rewards.windows import check_fragments, unfold
from tests.fuzz.judging import Check, accepted
from tests.fuzz.mutate import bomb, bomb_archive, damaged_bytes, pick

SIZE, ACTIONS = 8, 4
LIMIT = 1 << 20  # bytes, unpacked
TYPES = ("u1", "i8", "f4", "f8", "?", "U3", "S3", "M8[s]", "c16", "V5", "u8", "i1")
HEADERS = (
    "{'descr': '<f8', 'fortran_order': False, 'shape': (35184372088832,)}",
    "{'descr': '|O', 'fortran_order': False, 'shape': (3,)}",
    "{'descr': '|u1', 'fortran_order': True, 'shape': (-1,)}",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (100000000000,)}",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (0, 9223372036854775807, 9223372036854775807)}",
    "{'descr': '<U100000000', 'fortran_order': False, 'shape': (1,)}",
    "{'descr': [('a', '<i8', (1000, 1000))], 'fortran_order': False, 'shape': (3,)}",
    "{" + "(" * 5000,
    "[" * 90 + "]" * 90,
)


def reward_requests(directory: Path) -> Check:
    """Bodies of requests."""
    for kind in BOMBS:
        bomb(kind)  # takes seconds, which no input should

    def check(rng: Generator) -> None:
        body = pick(rng, BODIES)(rng)
        if not (unpacked := accepted(lambda: wire.unpack_question(body, max_bytes=LIMIT))):
            return
        question = unpacked[0]
        sizes = {"frame_size": SIZE, "num_actions": ACTIONS}
        if not accepted(lambda: check_fragments(question.frames, question.actions, question.episodes, **sizes)):
            return
        for frames, actions, name in zip(
            question.frames, question.actions, question.episodes or [None] * len(question.frames), strict=True
        ):
            windows = unfold(frames, actions, name)
            assert windows.frames.shape == (max(len(actions) - 3, 0), 5, SIZE, SIZE, 3)
            assert windows.actions_M4.shape == (max(len(actions) - 3, 0), 4)

    return check


def _arrays(rng: Generator) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for number in range(int(rng.integers(1, 3))):
        length = int(rng.integers(0, 7))
        arrays[f"frames_{number}"] = rng.integers(256, size=(length + 1, SIZE, SIZE, 3), dtype=np.uint8)
        arrays[f"actions_{number}"] = rng.integers(ACTIONS, size=length)
    if rng.random() < 0.5:
        arrays["episodes"] = np.array(["a"] * (len(arrays) // 2))
    return arrays


def _packed(arrays: dict[str, np.ndarray], rng: Generator) -> bytes:
    file = io.BytesIO()
    pick(rng, (np.savez, np.savez_compressed))(file, **arrays)
    return file.getvalue()


def _damaged(rng: Generator) -> bytes:
    content = _packed(_arrays(rng), rng)
    return damaged_bytes(rng, content, pick(rng, (0, 0, content.index(b"PK\x01\x02"))))


def _other_arrays(rng: Generator) -> bytes:
    arrays = _arrays(rng)
    for _ in range(int(rng.integers(1, 3))):
        name = pick(rng, list(arrays))
        kind = int(rng.integers(4))
        if kind == 0:
            arrays[pick(rng, ("frames_", "frames_01", "frames_-1", "actions_9", "x", "episodes", "frames_٣"))] = (
                arrays.pop(name)
            )
        elif kind == 1:
            shape = tuple(int(rng.choice([0, 1, 2, 5, 8, 9])) for _ in range(int(rng.integers(0, 6))))
            arrays[name] = np.zeros(shape, pick(rng, TYPES))
        elif kind == 2 and arrays[name].dtype.kind in "iufb":
            arrays[name] = arrays[name].astype(
                "U9" if rng.random() < 0.3 else pick(rng, ("f4", "u8", "i1", "?", ">i8"))
            )
        elif arrays[name].dtype.kind in "iuf":
            arrays[name] = arrays[name].astype("i8") + pick(rng, (-1, 1, 2**31, -(2**40), 0.5))
        if not arrays:
            break
    return _packed(arrays, rng)


def _other_headers(rng: Generator) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("frames_0.npy", "actions_0.npy"):
            header = pick(rng, HEADERS).encode()
            header = damaged_bytes(rng, header) if rng.random() < 0.5 else header
            version = pick(rng, (1, 2, 3, 9))
            length = len(header).to_bytes(2 if version == 1 else 4, "little")
            archive.writestr(name, b"\x93NUMPY" + bytes([version, 0]) + length + header + rng.bytes(200))
    return file.getvalue()


def _bomb(rng: Generator) -> bytes:
    """A member that says it is small, and unpacks to much more."""
    return bomb_archive("frames_0.npy", pick(rng, BOMBS), int(rng.choice([100, 1000, LIMIT])))


BOMBS = (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)


def _many(rng: Generator) -> bytes:
    """Many small or doubled members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(200):
            archive.writestr(
                f"{pick(rng, ('frames', 'actions', 'x'))}_{number % 50}.npy", b"" if rng.random() < 0.5 else b"x"
            )
    return file.getvalue()


BODIES: tuple[Callable[[Generator], bytes], ...] = (
    *(_damaged, _damaged, _damaged, _damaged, _other_arrays, _other_arrays, _other_arrays, _other_headers),
    lambda rng: rng.bytes(int(rng.integers(300))),
    lambda rng: _bomb(rng) if rng.random() < 0.2 else _many(rng) if rng.random() < 0.1 else _damaged(rng),
)
