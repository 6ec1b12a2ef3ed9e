"""What a replay dataset says of itself: the content of its `_dataset.json`."""

from dataclasses import dataclass, field
from typing import Any

from genie_ray.replay.schema import SCHEMA_VERSION, LargeFrameLayout

METADATA_FILE = "_dataset.json"


@dataclass(frozen=True, kw_only=True)
class GameCounts:
    """How much of one game a dataset holds."""

    episodes: int
    actions: int


@dataclass(frozen=True, kw_only=True)
class MissingPlay:
    """What of one game was asked for and is not there."""

    unit: str  # "steps" or "episodes"
    ranges: tuple[tuple[int, int], ...]  # first and behind last of those of the game, counted from 0
    reason: str


@dataclass(frozen=True, kw_only=True)
class DatasetMetadata:
    """What `_dataset.json` says about a dataset."""

    action_names: tuple[str, ...]  # what actions 0, 1, … are
    frame_shape: tuple[int, int, int]  # (H, W, 3)
    policy: str  # who played
    policy_checkpoint: str | None = None  # hash of its weights; None for a scripted policy
    config: dict[str, Any] = field(default_factory=dict)  # of the collection, as plain JSON
    counts: dict[str, GameCounts]  # by game
    missing: dict[str, MissingPlay] = field(default_factory=dict)  # by game; running the collection again tries again
    large_frames: LargeFrameLayout | None = None  # which ones there are
    files: dict[str, str] | None = None  # SHA-256 of the footer of `game=<game>/<shard>.parquet`; None: not known
    schema_version: int = SCHEMA_VERSION

    def require_fit(self, *, frame_size: int, num_actions: int | None = None) -> None:
        """Raises ValueError where a model of this frame size, and number of actions, does not fit the dataset."""
        if self.frame_shape != (frame_size, frame_size, 3):
            raise ValueError(
                f"the dataset holds frames of {self.frame_shape}, the model takes {(frame_size, frame_size, 3)}"
            )
        if num_actions not in (None, len(self.action_names)):
            names = self.action_names
            raise ValueError(
                f"the dataset has {len(names)} actions ({', '.join(names)}), the model takes {num_actions}"
            )
