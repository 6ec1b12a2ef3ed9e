"""Which reward the explorer gets, and the resources of the service that computes it."""

from dataclasses import dataclass, field
from typing import Literal

from genie_ray.base.precision import Precision
from policies.baselines.config import CuriosityConfig, DisagreementConfig
from policies.checks import check_at_least, check_positive, check_unit_interval

RewardKind = Literal["entropy", "learning_progress", "disagreement", "rf", "vae"]
"""entropy            the world model's uncertainty (Savov et al. 2025, eqs. 2–4)
learning_progress  how much swapping in new weights reduced that uncertainty
disagreement       variance over an ensemble of heads on the world model's features
rf, vae            prediction error in random features or in a VAE's (Tab. 6)
"""
LEARNING_KINDS = ("disagreement", "rf", "vae")


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """The reward, and the service's replicas."""

    kind: RewardKind = "entropy"
    top_k_fraction: float = 0.25  # share of a frame's tokens that count, highest first (eq. 4)
    scale: float = 1.0  # the published code multiplies by 2
    # Multiplies any reward by n^−½ at the n-th visit, in its episode or in all play, to what frame t shows.
    novelty: Literal["none", "episodic", "lifelong"] = "none"
    novelty_tolerance: float = 0.05  # largest share of differing tokens at which two frames count as the same; ours
    curiosity: CuriosityConfig = field(default_factory=CuriosityConfig)  # of "rf" and "vae"
    disagreement: DisagreementConfig = field(default_factory=DisagreementConfig)

    batch_size: int = 64  # windows per forward pass
    precision: Precision = "auto"
    replicas: int = 1
    max_replicas: int | None = None  # if above `replicas`, Serve adds replicas under load and removes them afterwards
    max_waiting: int = 16  # requests of one caller that may wait for a replica; further ones are rejected
    cpus: float = 1.0  # per replica
    gpus: float | None = None  # per replica; None: one if the cluster has one for each, else none
    threads: int = 1  # of PyTorch, per replica

    def __post_init__(self) -> None:
        check_positive(self, "top_k_fraction", "scale")
        check_unit_interval(self, "top_k_fraction", "novelty_tolerance")
        check_at_least(1, self, "batch_size", "replicas", "max_waiting", "threads")
        check_at_least(0, self, "cpus")
        if self.gpus is not None:
            check_at_least(0, self, "gpus")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}; allowed: replicas ({self.replicas}) or more")
        if self.remembers and (self.max_replicas or self.replicas) > 1:
            raise ValueError(
                f"replicas and max_replicas are {self.replicas} and {self.max_replicas}; allowed with {self.reason}, "
                "which remembers what it has seen: 1"
            )

    @property
    def reason(self) -> str:
        """The setting that makes it stateful, for error messages."""
        return f"novelty {self.novelty!r}" if self.novelty != "none" else f"kind {self.kind!r}"

    @property
    def learns(self) -> bool:
        """Whether it learns from what it judges."""
        return self.kind in LEARNING_KINDS

    @property
    def remembers(self) -> bool:
        """Whether answers depend on earlier requests."""
        return self.novelty != "none" or self.learns

    @property
    def stateful(self) -> bool:
        """Whether a restarted replica needs saved state."""
        return self.remembers or self.kind == "learning_progress"
