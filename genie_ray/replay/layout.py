"""The columns of a replay dataset's files, and what their schemas say of the frames: size, and which are large, too.

Axis letters: H, W and C=3 of frames; M large frames of L×L pixels.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError

from genie_ray.base.files import shown

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class LargeFrameLayout:
    """Which large frames an episode holds: those of steps 0, every, 2·every, … up to the final observation."""

    size: int  # L, pixels
    every: int  # steps

    def __post_init__(self) -> None:
        for name in ("size", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of large frames is {getattr(self, name)}: must be at least 1")

    def count(self, actions: int) -> int:
        """M, for an episode with this many actions."""
        return actions // self.every + 1


def arrow_schema(frame_shape: tuple[int, int, int], large_frames: LargeFrameLayout | None = None) -> pa.Schema:
    """The columns of a dataset with frames of shape (H, W, 3), optionally with large frames."""
    height, width, channels = frame_shape
    fields = [
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
    ]
    metadata = {"schema_version": str(SCHEMA_VERSION), "frame_shape": json.dumps(list(frame_shape))}
    if large_frames is not None:
        fields.append(pa.field("large_frame", pa.large_binary()))  # variable length, because a null then takes no space
        metadata["large_frames"] = json.dumps(asdict(large_frames))
    return pa.schema(fields, metadata=metadata)


def frame_shape_of(schema: pa.Schema) -> tuple[int, int, int]:
    """The shape (H, W, 3) of the frames of a file with this schema.

    Raises:
        ValueError: the schema is not a replay dataset's, or has another version.
    """
    metadata = cast(Mapping[bytes, bytes], schema.metadata or {})
    if not {b"schema_version", b"frame_shape"} <= metadata.keys():
        raise ValueError("not a file of a replay dataset: its schema has no schema_version and frame_shape")
    version = metadata[b"schema_version"]
    if version != str(SCHEMA_VERSION).encode():
        raise ValueError(f"schema version is {shown(version.decode(errors='replace'))}: must be {SCHEMA_VERSION}")
    height, width, channels = _described(tuple[int, int, int], metadata, b"frame_shape")
    if min(height, width) < 1 or channels != 3 or height * width * channels >= 2**31:
        raise ValueError(f"frame_shape is {[height, width, channels]}: must be [H, W, 3]")
    expected = arrow_schema((height, width, channels), large_frame_layout_of(schema))
    if not schema.equals(expected):
        raise ValueError(
            f"columns are {shown(schema.names)}: expected {expected.names} with the types of a replay dataset"
        )
    return height, width, channels


def large_frame_layout_of(schema: pa.Schema) -> LargeFrameLayout | None:
    """The large frames in a file with this schema, if any.

    Raises:
        ValueError: the schema does not describe them.
    """
    if b"large_frames" not in (schema.metadata or {}):
        return None
    return _described(LargeFrameLayout, schema.metadata, b"large_frames")


def _described(kind: Any, metadata: Mapping[bytes, bytes], key: bytes) -> Any:
    """A value that a schema's metadata holds as JSON."""
    try:
        return TypeAdapter(kind).validate_json(metadata[key], strict=True)
    except ValidationError as error:
        raise ValueError(f"{key.decode()} is {shown(metadata[key])}: {error.errors()[0]['msg'].lower()}") from error
