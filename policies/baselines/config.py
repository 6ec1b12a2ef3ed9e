"""Settings of the baselines: curiosity in a feature space, curiosity by disagreement."""

from dataclasses import dataclass

from policies.checks import check_at_least, check_positive


@dataclass(frozen=True, kw_only=True)
class CuriosityConfig:
    """Sizes and learning rate of the feature predictor (and of the VAE). Defaults: Burda et al. 2018."""

    features: int = 512
    hidden: int = 512
    residual_blocks: int = 4
    learning_rate: float = 1e-4
    seed: int = 0  # of the initial weights, which define the features of "rf"

    def __post_init__(self) -> None:
        check_at_least(1, self, "features", "hidden")
        check_at_least(0, self, "residual_blocks")
        check_positive(self, "learning_rate")


@dataclass(frozen=True, kw_only=True)
class DisagreementConfig:
    """Sizes and learning rate of the ensemble."""

    heads: int = 5  # Pathak et al. 2019
    hidden: int = 128  # ours: per position in a frame; Plan2Explore's 400 predict a whole frame
    learning_rate: float = 3e-4  # Sekar et al. 2020
    seed: int = 0  # of the initial weights

    def __post_init__(self) -> None:
        check_at_least(2, self, "heads")
        check_at_least(1, self, "hidden")
        check_positive(self, "learning_rate")
