"""Settings of the baselines: PPO, curiosity in a feature space, curiosity by disagreement."""

from dataclasses import dataclass

from policies.checks import check_at_least, check_positive, check_unit_interval


@dataclass(frozen=True, kw_only=True)
class PPOSettings:
    """Sizes of a PPO run. Defaults: the Atari column of Schulman et al. 2017, table 5, except where noted."""

    num_envs: int = 8  # environments per runner, each in its own process
    fragment_length: int = 128  # steps per environment between updates
    minibatch_size: int = 256
    epochs: int = 3  # passes over a fragment
    learning_rate: float = 2.5e-4
    gamma: float = 0.99
    lambda_: float = 0.95
    clip: float = 0.1
    entropy_weight: float = 0.01
    gradient_norm: float = 0.5  # as in the implementation behind the paper's results
    epsilon: float = 0.01  # ours: share of random actions in training
    # Convolutions (channels, kernel, stride) of Mnih et al. 2015, on 64×64 frames, and the hidden layer after them.
    filters: tuple[tuple[int, int, int], ...] = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
    hidden: int = 512

    def __post_init__(self) -> None:
        check_at_least(1, self, "num_envs", "fragment_length", "minibatch_size", "epochs", "hidden")
        check_at_least(0, self, "entropy_weight")
        check_positive(self, "learning_rate", "clip", "gradient_norm")
        check_unit_interval(self, "gamma", "lambda_", "epsilon")
        if not self.filters:
            raise ValueError("filters are empty; allowed: one or more (channels, kernel, stride)")


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
