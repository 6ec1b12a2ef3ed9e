"""What an agent sees of a game and may do in it."""

import os
from dataclasses import dataclass
from typing import Literal

from genie_ray.games.actions import action_names


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """What an agent sees and may do."""

    frame_size: int = 64  # pixels, height and width; the paper's frames are 64×64
    frame_skip: int = 4  # emulator frames per step
    pool: Literal["last", "max2"] = (
        "last"  # which of them show: the last, or the last two's brighter pixels (Mnih 2015)
    )
    skip_start: bool = False  # hold no button until the game listens (games/memory.yaml); these are no steps
    max_episode_steps: int = 700  # longer episodes are truncated; the length of the paper's test episodes
    fit: Literal["pad", "stretch"] = "pad"  # how the console's picture becomes a square
    action_set: str = "paper"  # a name in games/actions.yaml, or actions joined by commas
    integrations: tuple[str, ...] = ()  # folders with your own games, see roms.add_integrations
    # Of all of procgen's games; two are named after the first that was here, as datasets have them by these names.
    coinrun_mode: Literal["easy", "hard"] = "hard"  # procgen's default, and Genie's data (arXiv 2402.15391)
    paint_vel_info: bool = False  # paint the player's speed into a corner of the picture; procgen's default
    coinrun_levels: tuple[int, int] = (0, 10_000)  # the first, and how many; Genie's data (arXiv 2402.15391)

    def __post_init__(self) -> None:
        absolute = tuple(os.path.abspath(directory) for directory in self.integrations)
        object.__setattr__(self, "integrations", absolute)  # rollout workers have their own working directories
        for name in ("frame_size", "frame_skip", "max_episode_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: must be at least 1")
        if self.fit not in ("pad", "stretch"):
            raise ValueError(f"fit is {self.fit!r}: must be 'pad' or 'stretch'")
        if self.pool not in ("last", "max2"):
            raise ValueError(f"pool is {self.pool!r}: must be 'last' or 'max2'")
        if self.pool == "max2" and self.frame_skip < 2:
            raise ValueError(f"pool is 'max2' with frame_skip {self.frame_skip}: must be at least 2")
        if self.coinrun_mode not in ("easy", "hard"):
            raise ValueError(f"coinrun_mode is {self.coinrun_mode!r}: must be 'easy' or 'hard'")
        first, count = self.coinrun_levels
        if first < 0 or count < 1 or first + count > 2**31 - 1:
            raise ValueError(
                f"coinrun_levels is {first}, {count}: must be a first level from 0 on and a positive count"
            )
        action_names(self.action_set)
