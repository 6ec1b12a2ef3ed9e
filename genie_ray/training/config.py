"""How the world model's parts are built and trained: one training's settings, and the recipe that combines them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from genie_ray.base.precision import Precision
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieReduxConfig, GenieReduxGConfig
from world_model.latent_actions import LatentActionConfig
from world_model.tokenizer import TokenizerConfig
from world_model.upscaler import UpscalerConfig


@dataclass(frozen=True, kw_only=True)
class RankingConfig:
    """Ranked replay (ranking.py): badly predicted episodes come more often. Only for dynamics guided by actions."""

    every: int = 0  # iterations between rankings; 0: all windows come equally often
    groups: int = 4  # of equally many episodes, each with a weight
    strength: float = 0.75  # weights go from 1 − strength to 1 + strength
    windows: int = 2  # scored of each episode
    most: int = 512  # episodes scored at a time

    def __post_init__(self) -> None:
        for name, least in (("every", 0), ("groups", 2), ("windows", 1), ("most", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least {least}")
        if not 0 < self.strength < 1:
            raise ValueError(f"strength = {self.strength}: must be in (0, 1)")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Optimisation of one part. Defaults: the paper's tokenizer recipe (supplement A)."""

    iterations: int = 150_000
    batch_size: int = 112  # windows per optimiser step, over all workers and micro-steps
    accumulate: int = 1  # micro-steps per optimiser step
    window: int = 16  # frames
    stride: int = 1  # frames between the starts of neighbouring windows
    learning_rate: float = 1e-4
    schedule: Literal["cosine", "step"] = "cosine"
    final_learning_rate: float = 5e-5  # where the cosine ends and stays
    step_iterations: int = 12_500  # of "step": the rate is multiplied by step_factor every so many iterations
    step_factor: float = 0.5
    warmup_iterations: int = 5_000
    warmup_factor: float = 0.5  # of learning_rate, at iteration 0
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4  # none on vectors and biases
    clip_norm: float = 10.0
    precision: Precision = "auto"
    compile: bool = False  # torch.compile; needs a C++ compiler on a CPU, pays off in long training runs
    checkpoint_activations: bool = False  # recompute activations instead of keeping them: less memory, more time
    shuffle_buffer: int = 2_048  # windows shuffled in memory, of all workers together
    ranking: RankingConfig = field(default_factory=RankingConfig)
    log_every: int = 100
    validate_every: int = 5_000
    validation_windows: int = 256  # for an upscaler: pictures
    checkpoint_every: int = 5_000

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "accumulate", "stride", "shuffle_buffer", "validation_windows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        for name in ("log_every", "validate_every", "checkpoint_every", "step_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1 iteration")
        if self.window < 2:
            raise ValueError(f"window = {self.window}: a window needs at least 2 frames")
        if not 0 < self.final_learning_rate <= self.learning_rate:
            raise ValueError(
                f"final_learning_rate = {self.final_learning_rate}: must be in (0, learning_rate], that is at most "
                f"{self.learning_rate}"
            )
        if not 0 < self.step_factor <= 1:
            raise ValueError(f"step_factor = {self.step_factor}: must be in (0, 1]")
        if not 0 <= self.warmup_iterations < self.iterations:
            raise ValueError(f"warmup_iterations = {self.warmup_iterations}: must be in [0, {self.iterations})")
        if not 0 <= self.warmup_factor <= 1:
            raise ValueError(f"warmup_factor = {self.warmup_factor}: must be in [0, 1]")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas = {self.betas}: each must be in [0, 1)")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay = {self.weight_decay}: must be 0 or more")
        if not self.clip_norm > 0:
            raise ValueError(f"clip_norm = {self.clip_norm}: must be above 0")


def check_batch_size(config: TrainingConfig, workers: int) -> None:
    """Raises ValueError if a batch cannot be divided among that many workers."""
    if config.batch_size % (workers * config.accumulate):
        raise ValueError(
            f"batch_size = {config.batch_size}: must be a multiple of ray.train_workers × accumulate = "
            f"{workers} × {config.accumulate}"
        )


PAPERS_UPSCALER_TRAINING = TrainingConfig(
    batch_size=128,
    iterations=150_000,  # paper: 300 epochs; here of 64,000 pictures each
    learning_rate=1e-4,
    schedule="step",
    step_iterations=12_500,  # 25 epochs
    step_factor=0.5,
    warmup_iterations=0,
    betas=(0.9, 0.999),  # Adam's defaults
    weight_decay=0.0,
    clip_norm=math.inf,
)
"""Paper, supplement: Adam, rate 1e-4, StepLR(25 epochs, 0.5), batch 128, 300 epochs."""


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """What a world model consists of, and how each part is trained."""

    seed: int = 0
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    latent_actions: LatentActionConfig = field(default_factory=LatentActionConfig)  # if conditioning is "latent"
    upscaler: UpscalerConfig = field(default_factory=UpscalerConfig)
    train_tokenizer: TrainingConfig = field(default_factory=TrainingConfig)
    train_dynamics: TrainingConfig = field(default_factory=lambda: TrainingConfig(batch_size=80, iterations=185_000))
    train_upscaler: TrainingConfig = field(default_factory=lambda: PAPERS_UPSCALER_TRAINING)
    tune_decoder: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(  # iterations: paper, fine-tuning to a new game; the rest is ours
            iterations=1_000, warmup_iterations=100, validate_every=250, checkpoint_every=250
        )
    )
    finetune: TrainingConfig = field(default_factory=lambda: TrainingConfig(batch_size=160, iterations=10_000))

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed = {self.seed}: must be in [0, 2**63)")
        if self.dynamics.conditioning == "latent":  # checks that the parts fit together
            GenieReduxConfig(tokenizer=self.tokenizer, dynamics=self.dynamics, latent_actions=self.latent_actions)
        else:
            GenieReduxGConfig(tokenizer=self.tokenizer, dynamics=self.dynamics)
        for name, part in (
            ("train_tokenizer", "tokenizer"),
            ("tune_decoder", "tokenizer"),
            ("train_dynamics", "dynamics"),
            ("finetune", "dynamics"),
        ):
            length, longest = getattr(self, name).window, getattr(self, part).max_frames
            if length > longest:
                raise ValueError(f"{name}.window = {length}: {part}.max_frames = {longest} is less")
