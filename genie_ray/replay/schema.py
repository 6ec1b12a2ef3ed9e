"""What a replay dataset stores: an episode as a Parquet table, one row per step.

Frames are kept raw, as `fixed_size_binary(H·W·3)`: successive frames of a game repeat within the window of Parquet's
zstd, which makes them smaller than any image codec would, lossless, and several hundred thousand per second to decode.
The last observation of an episode is a final row whose action is −1, so T actions have T+1 frames. That row alone
carries `terminated` and `truncated`; its reward and log-probability are null.

Axis letters: T actions of an episode, H, W and C=3 of its frames.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SCHEMA_VERSION = 1
NO_ACTION = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """One episode: T actions and the T+1 frames around them.

    Arrays over actions hold at t what action t led to. NaN in `reward_uncertainty` means that the reward is undefined
    there (a transition too early in its episode for the world model's window).
    """

    episode_id: str
    game: str  # a Stable-Retro id
    frames: NDArray[np.uint8]  # [T+1, H, W, 3]
    actions: NDArray[np.int8]  # [T]
    action_logp: NDArray[np.float32] | None  # [T], of the behaviour policy; None for a scripted one
    reward_env: NDArray[np.float32]  # [T], the game's own reward
    reward_uncertainty: NDArray[np.float32] | None  # [T]; None where nothing asked for it
    terminated: bool  # the game ended
    truncated: bool  # the step limit ended it
    infos: list[dict[str, Any]]  # T+1, the emulator's variables with each frame

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


def episode_id(game: str, policy: str, seed: int, index: int) -> str:
    """The name of an episode: the same game, policy, seed and index always give the same one."""
    return f"{game}/{policy}/{seed}/{index:06d}"


def arrow_schema(frame_shape: tuple[int, int, int]) -> pa.Schema:
    """The columns of a dataset with frames of shape (H, W, 3)."""
    height, width, channels = frame_shape
    return pa.schema(
        [
            pa.field("episode_id", pa.string(), nullable=False),
            pa.field("step", pa.int32(), nullable=False),
            pa.field("frame", pa.binary(height * width * channels), nullable=False),
            pa.field("action", pa.int8(), nullable=False),
            pa.field("action_logp", pa.float32()),
            pa.field("reward_env", pa.float32()),
            pa.field("reward_uncertainty", pa.float32()),
            pa.field("terminated", pa.bool_(), nullable=False),
            pa.field("truncated", pa.bool_(), nullable=False),
            pa.field("info", pa.string(), nullable=False),
        ],
        metadata={"schema_version": str(SCHEMA_VERSION), "frame_shape": json.dumps(list(frame_shape))},
    )


def frame_shape_of(schema: pa.Schema) -> tuple[int, int, int]:
    """The shape (H, W, 3) of the frames of a file with this schema.

    Raises:
        ValueError: the schema is not that of a replay dataset, or of another version.
    """
    metadata = cast(Mapping[bytes, bytes], schema.metadata or {})
    if not {b"schema_version", b"frame_shape"} <= metadata.keys():
        raise ValueError("not a file of a replay dataset: its schema has no schema_version and frame_shape")
    version = metadata[b"schema_version"].decode()
    if version != str(SCHEMA_VERSION):
        raise ValueError(f"schema version is {version}: this program reads {SCHEMA_VERSION}")
    height, width, channels = json.loads(metadata[b"frame_shape"])
    expected = arrow_schema((height, width, channels))
    if not schema.equals(expected):
        raise ValueError(f"columns are {schema.names}: expected {expected.names} with the types of a replay dataset")
    return height, width, channels


def episode_to_table(episode: Episode) -> pa.Table:
    """An episode as rows, its final observation last; the frames are not copied if they are contiguous."""
    T = len(episode.actions)
    schema = arrow_schema(cast(tuple[int, int, int], episode.frames.shape[1:]))
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
        infos=[json.loads(info) for info in table["info"].to_pylist()],
    )


def frames_of(table: pa.Table) -> NDArray[np.uint8]:
    """The frame column as uint8 [T+1, H, W, 3], without a copy if it is one chunk (as a row group read alone is)."""
    frame_shape = json.loads(table.schema.metadata[b"frame_shape"])
    column = table["frame"]
    column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    size = int(np.prod(frame_shape))
    flat = np.frombuffer(column.buffers()[1], np.uint8, count=len(column) * size, offset=column.offset * size)
    return flat.reshape(len(column), *frame_shape)


def update_digest(digest: "hashlib._Hash", table: pa.Table) -> None:
    """Add an episode's rows to a digest of content, the same for a table just made and one read back."""
    for name in table.schema.names:
        if name == "frame":
            digest.update(frames_of(table).data)
        elif pa.types.is_string(table.schema.field(name).type):
            digest.update("\n".join(table[name].to_pylist()).encode())
        else:
            digest.update(table[name].to_numpy().data)


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
    """A NumPy number as the Python number that JSON has."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"info holds a {type(value).__name__}: only numbers, strings, lists and dicts are stored")
