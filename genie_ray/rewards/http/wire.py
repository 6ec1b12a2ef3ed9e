"""The format of fragments and rewards over HTTP: .npz files (numpy's archive of arrays, without pickles).

Question   frames_0   uint8 [n + 1, H, W, C]   of the first fragment
           actions_0  int64 [n]                `actions_0[i]` leads from `frames_0[i]` to `frames_0[i + 1]`
           frames_1, actions_1, …              more fragments
           episodes   text [fragments]         optional: the fragments' episodes
Answer     rewards_0  float32 [n]              NaN for the first three: they have no window
           <statistic>_0                       float32 [n]; what the reward is computed from
           maps_0     float32 [n, h, w]        if requested: over the tokens of each frame
           version    text []                  of the weights that answered
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

import numpy as np

from genie_ray.base.errors import one_line
from genie_ray.base.files import shortened
from policies.rewards import RewardAnswer

PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # by numpy
MEDIA_TYPE = "application/x-npz"


@dataclass(frozen=True, kw_only=True)
class Question:
    """The fragments of one request."""

    frames: list[np.ndarray]
    actions: list[np.ndarray]
    episodes: list[str] | None


def pack_question(question: Question) -> bytes:
    """Writes a question as an .npz file."""
    arrays: dict[str, np.ndarray] = {}
    for number, (frames, actions) in enumerate(zip(question.frames, question.actions, strict=True)):
        arrays |= {f"frames_{number}": frames, f"actions_{number}": actions}
    if question.episodes is not None:
        arrays["episodes"] = np.array(question.episodes, np.str_)
    return _pack(arrays)


def unpack_question(body: bytes, *, max_bytes: int) -> Question:
    """Reads a question.

    Raises:
        ValueError: not such a file, or more than `max_bytes` when unpacked.
    """
    arrays = _unpack(body, max_bytes)
    count = sum(name.startswith("frames_") for name in arrays)
    wanted = {f"{kind}_{number}" for kind in ("frames", "actions") for number in range(count)}
    if not count or wanted != arrays.keys() - {"episodes"}:
        given = shortened(", ".join(sorted(map(ascii, arrays)))).replace("'", "") or "nothing"
        raise ValueError(f"the file holds {given}; allowed: frames_0, actions_0, …")
    named = arrays.get("episodes")
    if named is not None and (named.ndim != 1 or named.dtype.kind != "U"):
        raise ValueError(f"episodes have shape {list(named.shape)} and type {named.dtype}; allowed: [fragments], text")
    return Question(
        frames=[arrays[f"frames_{number}"] for number in range(count)],
        actions=[arrays[f"actions_{number}"] for number in range(count)],
        episodes=None if named is None else named.tolist(),
    )


def pack_answer(answer: RewardAnswer) -> bytes:
    """Writes an answer as an .npz file."""
    named = {"rewards": answer.rewards, **answer.statistics}
    if answer.maps is not None:
        named["maps"] = answer.maps
    arrays = {f"{name}_{number}": array for name, parts in named.items() for number, array in enumerate(parts)}
    return _pack({**arrays, "version": np.array(answer.version, np.str_)})


def unpack_answer(body: bytes, *, max_bytes: int) -> RewardAnswer:
    """Reads an answer."""
    arrays = _unpack(body, max_bytes)
    version = str(arrays.pop("version"))
    named: dict[str, list[np.ndarray]] = {}
    for key, array in arrays.items():
        named.setdefault(key.rpartition("_")[0], []).append(array)
    rewards, maps = named.pop("rewards", []), named.pop("maps", None)
    return RewardAnswer(rewards=rewards, version=version, statistics=named, maps=maps)


def _pack(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _unpack(body: bytes, max_bytes: int) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            entries = archive.infolist()
            if len({entry.filename for entry in entries}) < len(entries):
                raise ValueError("two arrays have the same name")
            if any(entry.compress_type not in PACKED for entry in entries):  # others unpack without a limit
                raise ValueError("it is packed in another way than numpy does")
            unpacked = sum(entry.file_size for entry in entries)
            for entry in entries if unpacked <= max_bytes else ():
                with archive.open(entry) as file:  # numpy's loader would unpack whatever there is, not what it says
                    content = io.BytesIO(file.read(entry.file_size))
                arrays[entry.filename.removesuffix(".npy")] = np.lib.format.read_array(content, allow_pickle=False)
    except Exception as error:  # on damaged files, zipfile, its decompressors and numpy raise all kinds of errors
        raise ValueError(f"the body is not an .npz file: {shortened(one_line(error))}") from error
    if unpacked > max_bytes:
        raise ValueError(f"the file unpacks to {unpacked} bytes; allowed: {max_bytes}")
    return arrays
