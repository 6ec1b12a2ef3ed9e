"""The schema of a replay dataset: an episode as a Parquet table, one row per step.

Frames are stored raw, as `fixed_size_binary(H·W·3)`: successive frames of a game repeat within the window of Parquet's
zstd, which therefore makes them smaller than any image codec would, losslessly, and decodes several hundred thousand
per second. The last observation of an episode is a final row whose action is −1, so T actions have T+1 frames. Only
that row carries `terminated` and `truncated`; its reward and log-probability are null.

A dataset may also hold large frames, to train an upscaler on: the same screens at a higher resolution, for every n-th
step, null elsewhere. Other datasets lack this column.

Axis letters: T actions of an episode, H, W and C=3 of its frames; M large frames of L×L pixels.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from genie_ray.base.files import parse_json_object
from genie_ray.replay.layout import LargeFrameLayout, arrow_schema, large_frame_layout_of

NO_ACTION = -1
PIXEL_COLUMNS = ("frame", "large_frame")


@dataclass(frozen=True, kw_only=True, eq=False)
class LargeFrames:
    """The large frames of one episode."""

    frames: NDArray[np.uint8]  # [M, L, L, 3]
    every: int  # steps from one to the next; the first is of step 0

    def __post_init__(self) -> None:
        shape = self.frames.shape
        if self.frames.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[-1] != 3:
            raise ValueError(f"large frames are {self.frames.dtype} {list(shape)}: must be uint8 [M, L, L, 3]")

    @property
    def layout(self) -> LargeFrameLayout:
        """Their size and interval."""
        return LargeFrameLayout(size=self.frames.shape[1], every=self.every)


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """One episode: T actions and the T+1 frames around them.

    Arrays over actions hold at t the result of action t. NaN in `reward_uncertainty` means that the reward is undefined
    there (a transition too early in its episode for the world model's window).
    """

    episode_id: str
    game: str  # a Stable-Retro id
    frames: NDArray[np.uint8]  # [T+1, H, W, 3]
    actions: NDArray[np.int8]  # [T]
    action_logp: NDArray[np.float32] | None  # [T], of the behaviour policy; None for a scripted one
    reward_env: NDArray[np.float32]  # [T], the game's own reward
    reward_uncertainty: NDArray[np.float32] | None  # [T]; None if not computed
    terminated: bool  # the game ended
    truncated: bool  # a step limit ended it
    infos: list[dict[str, Any]]  # T+1, the emulator's variables with each frame
    large_frames: LargeFrames | None = None

    def __post_init__(self) -> None:
        T = len(self.actions)
        if T == 0:
            raise ValueError(f"episode {self.episode_id} has no action")
        if self.frames.dtype != np.uint8 or self.frames.ndim != 4 or self.frames.shape[-1] != 3:
            given = f"{self.frames.dtype} {list(self.frames.shape)}"
            raise ValueError(f"frames of episode {self.episode_id} are {given}: must be uint8 [T+1, H, W, 3]")
        lengths = {"frames": len(self.frames) - 1, "infos": len(self.infos) - 1, "reward_env": len(self.reward_env)}
        for name in ("action_logp", "reward_uncertainty"):
            if getattr(self, name) is not None:
                lengths[name] = len(getattr(self, name))
        for name, length in lengths.items():
            if length != T:
                raise ValueError(f"{name} of episode {self.episode_id} fits {length} actions: it has {T}")
        if self.large_frames is not None and len(self.large_frames.frames) != self.large_frames.layout.count(T):
            raise ValueError(
                f"episode {self.episode_id} has {len(self.large_frames.frames)} large frames: with one every "
                f"{self.large_frames.every} steps, {T} actions have {self.large_frames.layout.count(T)}"
            )


def episode_id(game: str, policy: str, seed: int, index: int) -> str:
    """The id of an episode, determined by game, policy, seed and index."""
    return f"{game}/{policy}/{seed}/{index:06d}"


def policy_of(episode: str) -> str:
    """The policy that an episode's id names."""
    return episode.split("/")[1]


def schema_of(episode: Episode) -> pa.Schema:
    """The columns of a dataset that holds this kind of episode."""
    height, width, channels = episode.frames.shape[1:]
    return arrow_schema(
        (height, width, channels), None if episode.large_frames is None else episode.large_frames.layout
    )


def episode_to_table(episode: Episode) -> pa.Table:
    """An episode as rows, its final observation last; contiguous frames are not copied."""
    T = len(episode.actions)
    schema = schema_of(episode)
    at_end = np.arange(T + 1) == T
    columns = {
        "episode_id": pa.array([episode.episode_id] * (T + 1), pa.string()),
        "step": pa.array(np.arange(T + 1, dtype=np.int32)),
        "frame": pa.FixedSizeBinaryArray.from_buffers(
            schema.field("frame").type, T + 1, [None, pa.py_buffer(np.ascontiguousarray(episode.frames))]
        ),
        "action": pa.array(np.append(episode.actions, NO_ACTION).astype(np.int8)),
        "action_logp": _nullable(episode.action_logp, T),
        "reward_env": _nullable(episode.reward_env, T),
        "reward_uncertainty": _nullable(episode.reward_uncertainty, T),
        "terminated": pa.array(at_end & episode.terminated),
        "truncated": pa.array(at_end & episode.truncated),
        "info": pa.array([json.dumps(info, default=_plain) for info in episode.infos], pa.string()),
    }
    if episode.large_frames is not None:
        columns["large_frame"] = _large_frame_column(episode.large_frames, T)
    return pa.table(columns, schema=schema)


def table_to_episode(table: pa.Table, *, game: str) -> Episode:
    """The episode that `episode_to_table` made this table from. Frames are read-only views of the table's memory.

    A `reward_uncertainty` or `action_logp` without any value comes back as None.
    """
    return Episode(
        episode_id=table["episode_id"][0].as_py(),
        game=game,
        frames=frames_of(table),
        actions=table["action"].to_numpy()[:-1],
        action_logp=_optional(table["action_logp"]),
        reward_env=_values(table["reward_env"]),
        reward_uncertainty=_optional(table["reward_uncertainty"]),
        terminated=table["terminated"][-1].as_py(),
        truncated=table["truncated"][-1].as_py(),
        infos=infos_of(table),
        large_frames=large_frames_of(table),
    )


def infos_of(table: pa.Table) -> list[dict[str, Any]]:
    """The emulator's variables with each frame.

    Raises:
        ValueError: one of them is not a JSON object.
    """
    return [parse_json_object(info) for info in table["info"].to_pylist()]


def frames_of(table: pa.Table) -> NDArray[np.uint8]:
    """The frame column as uint8 [T+1, H, W, 3], without a copy if it is one chunk (as a row group read alone is)."""
    frame_shape = json.loads(table.schema.metadata[b"frame_shape"])
    column = _one_chunk(table["frame"])
    size = int(np.prod(frame_shape))
    flat = np.frombuffer(column.buffers()[1], np.uint8, count=len(column) * size, offset=column.offset * size)
    return flat.reshape(len(column), *frame_shape)


def large_frames_of(table: pa.Table) -> LargeFrames | None:
    """The large frames in an episode's rows, without a copy if their column is one chunk; None if it has no column.

    Raises:
        ValueError: they do not match the schema.
    """
    layout = large_frame_layout_of(table.schema)
    if layout is None:
        return None
    column = _one_chunk(table["large_frame"])
    _, offsets, pixels = column.buffers()
    ends = np.frombuffer(offsets, np.int64, count=len(column) + 1, offset=8 * column.offset)
    lengths = np.where(np.arange(len(column)) % layout.every == 0, layout.size**2 * 3, 0)
    if not np.array_equal(np.diff(ends), lengths):
        raise ValueError(f"large frames are not {layout.size}×{layout.size} pixels at every step {layout.every}·n")
    flat = np.frombuffer(pixels, np.uint8, count=ends[-1] - ends[0], offset=ends[0])
    return LargeFrames(frames=flat.reshape(-1, layout.size, layout.size, 3), every=layout.every)


def update_digest(digest: "hashlib._Hash", table: pa.Table) -> None:
    """Add an episode's rows to a content digest, which is the same for a new table and one read back."""
    for name in table.schema.names:
        if name == "frame":
            digest.update(frames_of(table).data)
        elif name == "large_frame":
            large_frames = large_frames_of(table)
            assert large_frames is not None
            digest.update(large_frames.frames.data)
        elif pa.types.is_string(table.schema.field(name).type):
            digest.update("\n".join(table[name].to_pylist()).encode())
        else:
            digest.update(table[name].to_numpy().data)


def _large_frame_column(large_frames: LargeFrames, T: int) -> pa.Array:
    """M large frames as a column of T+1 rows, null where there is none; contiguous frames are not copied."""
    there = np.arange(T + 1) % large_frames.every == 0
    size = large_frames.layout.size**2 * 3
    buffers = [
        pa.array(there).buffers()[1],  # a boolean column's bits have the layout of Arrow's validity bits
        pa.py_buffer(np.append(0, np.cumsum(there * size)).astype(np.int64)),
        pa.py_buffer(np.ascontiguousarray(large_frames.frames)),
    ]
    return pa.Array.from_buffers(pa.large_binary(), T + 1, buffers)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _nullable(values: NDArray[np.float32] | None, T: int) -> pa.Array:
    """Values of T actions as a column of T+1 rows: null at the end, and where a value is NaN."""
    padded = np.full(T + 1, np.nan, np.float32)
    if values is not None:
        padded[:-1] = values
    return pa.array(padded, pa.float32(), mask=np.isnan(padded))


def _values(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Values of the actions, NaN where the column is null."""
    return column.to_numpy()[:-1].astype(np.float32)


def _optional(column: pa.ChunkedArray) -> NDArray[np.float32] | None:
    return None if column.null_count == len(column) else _values(column)


def _plain(value: Any) -> Any:
    """A NumPy number as the Python number that JSON can store."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"info holds a {type(value).__name__}: only numbers, strings, lists and dicts are stored")
