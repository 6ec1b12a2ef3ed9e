"""What a user study shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from genie_ray.base.precision import Precision

Kind = Literal["quality", "action"]
TRUTH = "game"
"""The source of clips that the game itself made."""

RATINGS = {
    "5": "the same",
    "4": "hardly different",
    "3": "somewhat different",
    "2": "clearly different",
    "1": "not alike",
}
"""Answers of the quality study."""
CHOICES = {"left": "left", "neither": "neither, or both", "right": "right"}
"""Answers of the action study."""
ANSWERS = {"quality": RATINGS, "action": CHOICES}


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """How many samples of which clips. The numbers of frames are those of the paper's evaluation (section 5)."""

    samples: int = 120  # pairs of clips; paper, supplement E
    truth: int = 20  # of them, pairs of which both clips are the game's: what raters say at best
    games: tuple[str, ...] = ()  # whose episodes are shown; none: all of the dataset's
    actions: tuple[str, ...] = ()  # that the action study names; none: all but NOOP
    prime_frames: int = 2  # given
    frames: int = 10  # predicted
    stride: int = 0  # frames between the starts of neighbouring windows; 0: as many as are predicted
    decoding_steps: int = 4  # of a predicted frame
    temperature: float = 0.0  # 0: always the likeliest tokens
    precision: Precision = "auto"
    fps: float = 6.0  # of the clips in the page
    seed: int = 0  # of what is drawn: sides, order, actions, tokens

    def __post_init__(self) -> None:
        for name in ("samples", "prime_frames", "frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: must be at least 1")
        if self.stride < 0:
            raise ValueError(f"stride is {self.stride}: must be 0 or more")
        if not 0 <= self.truth < self.samples:
            raise ValueError(f"truth is {self.truth}: must be from 0 to {self.samples - 1}, fewer than the samples")
        if not 1 <= self.fps <= 60:
            raise ValueError(f"fps is {self.fps:g}: must be from 1 to 60")

    @property
    def window(self) -> int:
        """Frames of a clip, given and predicted."""
        return self.prime_frames + self.frames
