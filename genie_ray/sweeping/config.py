"""What a sweep compares, and what its trials have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from genie_ray.collecting.config import CollectionConfig
from genie_ray.evaluating.config import EvaluationConfig
from genie_ray.exploring.config import ExplorersConfig
from policies.checks import check_at_least

SWEPT = ("reward.", "exploration.", "collection.explorer_epsilon", "collection.explorer_temperature", "seed")
"""What has a say in a trial."""


@dataclass(frozen=True, kw_only=True)
class TrialConfig(ExplorersConfig):
    """Everything that has a say in a trial: the explorer's training, its play, and the figures of that play."""

    collection: CollectionConfig = field(default_factory=CollectionConfig)  # finetune_steps are played
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """A sweep: the cross product of all lists, each point of it `samples` times.

    Each sample has ranges drawn anew and, unless seeds are swept, a seed of its own: `run.seed`, `run.seed` + 1, ...
    """

    world_model: str  # checkpoint directory: the judge, and whose error is measured
    # Dotted key → list of values, or a range {low:, high:} or {low:, high:, log: true}. A value may be a mapping: then
    # it changes the settings below its key together.
    parameters: dict[str, Any]
    run: TrialConfig = field(default_factory=TrialConfig)  # what all trials have in common
    samples: int = 1
    objective: Literal["coverage", "psnr"] = "coverage"  # by which the trials are ranked; PSNR: the lower, the better
    # ASHA (Li et al. 2020), by the cells seen so far: of those that get to an epoch grace · factorⁿ, the best 1/factor
    # go on. The factor is theirs.
    early_stopping: bool = True
    grace_epochs: int = 20
    reduction_factor: float = 4.0
    max_concurrent: int | None = None  # trials at once, at most; None: as many as the cluster has room for
    seed: int = 0  # of what is drawn from ranges

    def __post_init__(self) -> None:
        check_at_least(1, self, "samples", "grace_epochs")
        if self.max_concurrent is not None:
            check_at_least(1, self, "max_concurrent")
        if self.reduction_factor <= 1:
            raise ValueError(f"reduction_factor is {self.reduction_factor}; allowed: above 1")
        if not self.parameters:
            raise ValueError("parameters is empty: name at least one key and its values")
        for key, values in self.parameters.items():
            if not key.startswith(SWEPT):
                raise ValueError(f"parameters: {key} has no say in a trial; allowed: {', '.join(SWEPT)}")
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
