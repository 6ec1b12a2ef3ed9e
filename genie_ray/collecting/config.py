"""How much is played for a dataset, by how many workers, and how patient they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from genie_ray.replay.layout import LargeFrameLayout


@dataclass(frozen=True, kw_only=True)
class CollectionConfig:
    """How much is played, by how many workers, and how patient they are. Counts are environment steps per game."""

    random_steps: int = 350_000  # of random play for the base model; ours: 500 full episodes
    # Explored play: all that an explorer played in training, the widest that there is; its trained policy's; or both.
    explore_from: Literal["training", "policy", "both"] = "training"
    finetune_steps: int = 350_000  # of the trained policy's play, if that is used
    # As much random play as explored play is the comparison. It holds its actions as our explorers do, which is fair.
    control_hold: int = 4
    test_steps: int = 700_000  # paper, section 5: 1,000 episodes of 700 steps
    steps_per_shard: int = 10_000  # for episodes: the number that fits into this many steps
    workers_min: int = 1  # rollout workers, one emulator each, requested from the cluster even if no CPU is free
    workers_max: int = 2  # up to this many rollout workers are started while CPUs are free
    step_timeout_s: float = 120.0  # after this long without a step, a game counts as hung
    tries: int = 3  # of a shard, before its game is given up
    # A worker above this is replaced between two shards: Stella, the Atari emulator, leaks 0.14 MB at each reset.
    worker_memory_mb: int = 1_500
    explorer_epsilon: float = 0.01  # paper, A.3: AutoExplore's final ε
    explorer_temperature: float = 1.0  # paper, A.3
    test_epsilon: float = 0.3  # ours: share of random actions in the test agents' play
    test_levels: tuple[int, int] = (
        100_000,
        2_000,
    )  # of CoinRun: the first, and how many; others than env.coinrun_levels
    large_frame_every: int = 0  # steps between the large frames that an upscaler learns from; 0: none are stored
    large_frame_size: int = 256  # pixels, height and width; paper, supplement

    def __post_init__(self) -> None:
        counts = ("random_steps", "finetune_steps", "test_steps", "steps_per_shard")
        for name in (*counts, "workers_min", "tries", "worker_memory_mb", "control_hold"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.workers_max < self.workers_min:
            raise ValueError(f"workers_max = {self.workers_max}: must be at least workers_min, {self.workers_min}")
        if self.step_timeout_s <= 0:
            raise ValueError(f"step_timeout_s = {self.step_timeout_s}: must be above 0")
        for name in ("explorer_epsilon", "test_epsilon"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be in [0, 1]")
        if self.explorer_temperature <= 0:
            raise ValueError(f"explorer_temperature = {self.explorer_temperature}: must be above 0")
        if self.large_frame_every < 0:
            raise ValueError(f"large_frame_every = {self.large_frame_every}: must be 0 or more")
        if self.large_frame_size < 1:
            raise ValueError(f"large_frame_size = {self.large_frame_size}: must be at least 1")

    @property
    def large_frames(self) -> LargeFrameLayout | None:
        """Which large frames are stored, if any."""
        from genie_ray.replay.layout import LargeFrameLayout

        if not self.large_frame_every:
            return None
        return LargeFrameLayout(size=self.large_frame_size, every=self.large_frame_every)
