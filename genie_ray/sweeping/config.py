"""What a sweep compares, and what its trials have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from genie_ray.collecting.config import CollectionConfig
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.exploring.config import ExplorersConfig
from genie_ray.training.config import RecipeConfig, TrainingConfig
from policies.checks import check_at_least

SWEPT = ("reward.", "exploration.", "seed")
"""Settings that affect a trial."""


@dataclass(frozen=True, kw_only=True)
class TrialConfig(ExplorersConfig):
    """Everything that affects a trial: the explorer's training, and how what it played is measured."""

    collection: CollectionConfig = field(default_factory=CollectionConfig)  # of random play, for comparison
    # If the sweep has test play: the world model is fine-tuned on a trial's play as the loop does it.
    tune_decoder: TrainingConfig = RecipeConfig().tune_decoder
    finetune: TrainingConfig = RecipeConfig().finetune
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    @property
    def recipe(self) -> RecipeConfig:
        """How the world model is fine-tuned."""
        return RecipeConfig(seed=self.seed, tune_decoder=self.tune_decoder, finetune=self.finetune)


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A sweep: the cross product of all lists, with `samples` trials per point.

    Each sample draws from the ranges again and, unless seeds are swept, has its own seed: `run.seed`, `run.seed` + 1, …
    """

    world_model: str  # checkpoint directory: the judge, whose error on the play is also measured
    test: str | None = None  # replay dataset; with it, it is measured how much the judge learns from a trial's play
    # Dotted key → list of values, or a range {low:, high:} or {low:, high:, log: true}. A value that is a mapping
    # changes several settings below its key together.
    parameters: dict[str, Any]
    run: TrialConfig = field(default_factory=TrialConfig)  # what all trials have in common
    samples: int = 1
    # Ranks the trials: distinct cells of all that was played, gain in PSNR on the test play after fine-tuning on it, or
    # the judge's PSNR on it, the lower the better.
    objective: Literal["coverage", "gain", "psnr"] = "coverage"
    # ASHA (Li et al. 2020), by the cells seen so far: of the trials that reach an epoch grace · factorⁿ, the best
    # 1/factor continue. The factor is the paper's.
    early_stopping: bool = True
    grace_epochs: int = 20
    reduction_factor: float = 4.0
    max_concurrent: int | None = None  # trials at once; None: as many as the cluster has room for
    seed: int = 0  # for drawing from ranges

    def __post_init__(self) -> None:
        check_at_least(1, self, "samples", "grace_epochs")
        if self.max_concurrent is not None:
            check_at_least(1, self, "max_concurrent")
        if self.reduction_factor <= 1:
            raise ValueError(f"reduction_factor is {self.reduction_factor}; allowed: above 1")
        if self.objective == "gain" and self.test is None:
            raise ValueError("objective is 'gain', but there is no test play: name a dataset as test")
        if not self.parameters:
            raise ValueError("parameters is empty: name at least one key and its values")
        if self.run.ray.learner_apart:
            raise ValueError(
                "run.ray.learner_apart is True; allowed: False, since a trial's learner runs in its process"
            )
        for key, values in self.parameters.items():
            if not key.startswith(SWEPT):
                raise ValueError(f"parameters: {key} does not affect a trial; allowed: {', '.join(SWEPT)}")
            _check_values(key, values)


def _check_values(key: str, values: Any) -> None:
    if isinstance(values, list):
        if not values:
            raise ValueError(f"parameters: {key} has no values")
        return
    if not isinstance(values, Mapping) or not {"low", "high"} <= values.keys() <= {"low", "high", "log"}:
        raise ValueError(f"parameters: {key} is {values!r}; allowed: a list, or a range {{low:, high:, log:}}")
    low, high = values["low"], values["high"]
    if not all(isinstance(end, (int, float)) for end in (low, high)) or not low < high:
        raise ValueError(f"parameters: {key} ranges from {low} to {high}; allowed: numbers, the lower one first")
    if values.get("log") and low <= 0:
        raise ValueError(f"parameters: {key} ranges from {low}; allowed with log: above 0")
