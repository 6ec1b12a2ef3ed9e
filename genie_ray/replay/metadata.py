"""A replay dataset's metadata: the content of its `_dataset.json`."""

from dataclasses import dataclass, field
from typing import Any

from genie_ray.replay.layout import SCHEMA_VERSION, LargeFrameLayout

METADATA_FILE = "_dataset.json"


@dataclass(frozen=True, kw_only=True)
class GameCounts:
    """How much of one game a dataset holds."""

    episodes: int
    actions: int


@dataclass(frozen=True, kw_only=True)
class MissingPlay:
    """What was requested of one game but is missing."""

    unit: str  # "steps" or "episodes"
    ranges: tuple[tuple[int, int], ...]  # [first, end) within the game, counted from 0
    reason: str


@dataclass(frozen=True, kw_only=True)
class DatasetMetadata:
    """The content of `_dataset.json`."""

    action_names: tuple[str, ...]  # of actions 0, 1, …
    frame_shape: tuple[int, int, int]  # (H, W, 3)
    policy: str  # who played
    policy_checkpoint: str | None = None  # hash of its weights; None for a scripted policy
    config: dict[str, Any] = field(default_factory=dict)  # of the collection, as plain JSON
    counts: dict[str, GameCounts]  # by game
    missing: dict[str, MissingPlay] = field(default_factory=dict)  # by game; rerunning the collection retries
    large_frames: LargeFrameLayout | None = None  # None: no large frames
    files: dict[str, str] | None = None  # `game=<game>/<shard>.parquet` → SHA-256 of its footer; None: unknown
    schema_version: int = SCHEMA_VERSION

    def require_fit(self, *, frame_size: int, num_actions: int | None = None) -> None:
        """Raises ValueError if a model with this frame size and number of actions does not fit the dataset."""
        if self.frame_shape != (frame_size, frame_size, 3):
            raise ValueError(
                f"the dataset holds frames of {self.frame_shape}, the model takes {(frame_size, frame_size, 3)}"
            )
        if num_actions not in (None, len(self.action_names)):
            names = self.action_names
            raise ValueError(
                f"the dataset has {len(names)} actions ({', '.join(names)}), the model takes {num_actions}"
            )
