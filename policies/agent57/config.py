"""Agent57's settings. Defaults: as published (Badia et al. 2020b, 2003.13350, appendix G), unless a comment says so."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from policies.agent57.ladders import agent57_gammas, betas, epsilons, ngu_gammas
from policies.checks import check_at_least, check_positive, check_unit_interval


@dataclass(frozen=True, kw_only=True)
class Agent57Network:
    """Convolutions → LSTM → dueling heads, for the extrinsic and the intrinsic values each."""

    filters: tuple[tuple[int, int, int], ...] = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # channels, kernel, stride
    hidden: int = 512  # features of a frame
    lstm_size: int = 512
    head: int = 512
    shared_torso: bool = False  # one stack of convolutions for both; MEME (2209.07550) shares it
    # Whether a network is told its arm, or has a head for each, so that every sequence can teach all (MEME).
    arms_as: Literal["input", "heads"] = "input"

    def __post_init__(self) -> None:
        check_at_least(1, self, "hidden", "lstm_size", "head")
        if not self.filters:
            raise ValueError("filters are empty; allowed: one or more (channels, kernel, stride)")
        if self.arms_as not in ("input", "heads"):
            raise ValueError(f"arms_as is {self.arms_as!r}; allowed: 'input' or 'heads'")


@dataclass(frozen=True, kw_only=True)
class Agent57Novelty:
    """The intrinsic reward: how new a frame is to its episode, times how new it is altogether (NGU, 2002.06038)."""

    enabled: bool = True  # without it every β is 0: R2D2 with a family of discounts and a bandit
    lifelong: bool = True  # RND; without it, novelty in the episode alone
    filters: tuple[tuple[int, int, int], ...] = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
    features: int = 32  # controllable ones, by inverse dynamics
    lifelong_features: int = 128
    hidden: int = 128
    neighbours: int = 10
    kernel: float = 1e-4
    tolerance: float = 0.008  # squared distances, as a share of their running mean, that count as none
    pseudo_count: float = 1e-3
    max_similarity: float = 8.0
    memory: int = 30_000  # frames of an episode that are remembered
    max_lifelong: float = 5.0
    scaled: bool = False  # rewards are divided by their running mean; ours
    learning_rate: float = 5e-4
    adam_epsilon: float = 1e-4
    trained_steps: int = 5  # of each replayed sequence, its last ones

    def __post_init__(self) -> None:
        check_at_least(1, self, "features", "lifelong_features", "hidden", "neighbours", "memory", "trained_steps")
        check_at_least(1, self, "max_lifelong")
        check_positive(self, "kernel", "pseudo_count", "max_similarity", "learning_rate", "adam_epsilon")
        check_at_least(0, self, "tolerance")


@dataclass(frozen=True, kw_only=True)
class Agent57Family:
    """The arms: each a policy with a weight β of novelty and a discount γ."""

    arms: int = 32
    beta: float = 0.3
    gammas: Literal["agent57", "ngu"] = "agent57"
    gamma_max: float = 0.9999
    gamma_middle: float = 0.997  # of "agent57" only
    gamma_min: float = 0.99

    def __post_init__(self) -> None:
        check_at_least(1, self, "arms")
        check_at_least(0, self, "beta")
        check_unit_interval(self, "gamma_max", "gamma_middle", "gamma_min")
        if self.gammas not in ("agent57", "ngu"):
            raise ValueError(f"gammas is {self.gammas!r}; allowed: 'agent57' or 'ngu'")
        if not self.gamma_min <= self.gamma_max < 1:
            raise ValueError(
                f"gamma_min is {self.gamma_min}, gamma_max {self.gamma_max}; allowed: gamma_min ≤ gamma_max < 1"
            )
        self.discounts()

    def weights(self) -> np.ndarray:
        """β_j [arms]."""
        return betas(self.arms, self.beta)

    def discounts(self) -> np.ndarray:
        """γ_j [arms]."""
        if self.gammas == "ngu":
            return ngu_gammas(self.arms, self.gamma_max, self.gamma_min)
        return agent57_gammas(self.arms, self.gamma_max, self.gamma_middle, self.gamma_min)


@dataclass(frozen=True, kw_only=True)
class Agent57Bandit:
    """How an arm is chosen for an episode."""

    per: Literal["actor", "all"] = "actor"  # one bandit per environment, or one for all (ours, for few episodes)
    window: int = 160
    epsilon: float = 0.5
    bonus: float = 1.0
    scaled: bool = False  # returns are divided by their standard deviation; ours

    def __post_init__(self) -> None:
        check_at_least(1, self, "window")
        check_at_least(0, self, "bonus")
        check_unit_interval(self, "epsilon")
        if self.per not in ("actor", "all"):
            raise ValueError(f"per is {self.per!r}; allowed: 'actor' or 'all'")


@dataclass(frozen=True, kw_only=True)
class Agent57Play:
    """Rollout workers and how random they act."""

    runners: int = 256
    num_envs: int = 1  # environments per runner, each in its own process
    fragment_length: int = 40  # steps per environment between two reports; ours
    epsilon: float = 0.4  # ε_l = epsilon^(1 + α·l / (L − 1)) of environment l of L
    alpha: float = 8.0
    warm_up_steps: int = 0  # over which ε falls from 1 to ε_l; ours
    steps_per_iteration: int = 100_000  # of all environments, between two results; ours

    def __post_init__(self) -> None:
        check_at_least(1, self, "num_envs", "fragment_length", "steps_per_iteration")
        check_at_least(0, self, "runners", "alpha", "warm_up_steps")
        check_unit_interval(self, "epsilon")

    @property
    def slots(self) -> int:
        """Environments of all runners."""
        return max(self.runners, 1) * self.num_envs

    def epsilons(self) -> np.ndarray:
        """ε_l [slots]."""
        return epsilons(self.slots, self.epsilon, self.alpha)


@dataclass(frozen=True, kw_only=True)
class Agent57Learning:
    """Replay and loss."""

    sequence_length: int = 160
    burn_in: int = 0  # steps before a sequence that only bring the stored state up to date
    period: int = 80  # steps between the first steps of an episode's sequences
    replay_capacity: int = 5_000_000  # steps
    learning_starts: int = 1_000_000  # steps; as published: 6,250 sequences
    batch_size: int = 64  # sequences
    steps_per_update: float = (
        13_000.0  # environment steps of all runners; as published: 5 updates a second of 256 × 260
    )
    own_share: float = 1.0  # of the loss: the arm that played; the rest is shared by all arms (MEME: 0.5)
    trace_decay: float = 0.95  # λ
    target_epsilon: float = 0.01  # of the ε-greedy policy that is evaluated
    transform_epsilon: float = 1e-3
    priority_exponent: float = 0.9
    largest_share: float = 0.9  # η of `values.priorities`
    importance_exponent: float = 0.0
    learning_rate: float = 1e-4
    adam_epsilon: float = 1e-4
    gradient_norm: float = 40.0
    target_every: int = 1_500  # updates

    def __post_init__(self) -> None:
        check_at_least(1, self, "sequence_length", "period", "replay_capacity", "learning_starts", "batch_size")
        check_at_least(1, self, "target_every")
        check_at_least(0, self, "burn_in", "importance_exponent", "priority_exponent")
        check_positive(self, "learning_rate", "adam_epsilon", "gradient_norm", "steps_per_update", "transform_epsilon")
        check_unit_interval(self, "own_share", "trace_decay", "target_epsilon", "largest_share")
        if not self.burn_in <= self.period <= self.sequence_length:
            raise ValueError(
                f"period is {self.period}; "
                f"allowed: burn_in ({self.burn_in}) to sequence_length ({self.sequence_length})"
            )
        if self.learning_starts > self.replay_capacity:
            raise ValueError(
                f"learning_starts is {self.learning_starts}; allowed: at most replay_capacity ({self.replay_capacity})"
            )


@dataclass(frozen=True, kw_only=True)
class Agent57Settings:
    """All of them."""

    network: Agent57Network = field(default_factory=Agent57Network)
    novelty: Agent57Novelty = field(default_factory=Agent57Novelty)
    family: Agent57Family = field(default_factory=Agent57Family)
    bandit: Agent57Bandit = field(default_factory=Agent57Bandit)
    play: Agent57Play = field(default_factory=Agent57Play)
    learning: Agent57Learning = field(default_factory=Agent57Learning)

    def __post_init__(self) -> None:
        if self.network.arms_as == "input" and self.learning.own_share < 1:
            raise ValueError(
                f"own_share is {self.learning.own_share} with arms_as: input; allowed: 1, since only heads for all "
                "arms let a sequence teach all (arms_as: heads)"
            )
        if self.novelty.trained_steps > self.learning.sequence_length:
            raise ValueError(
                f"trained_steps is {self.novelty.trained_steps}; allowed: at most sequence_length "
                f"({self.learning.sequence_length})"
            )

    def weights(self) -> np.ndarray:
        """β_j [arms]; all 0 without novelty."""
        return self.family.weights() * self.novelty.enabled
