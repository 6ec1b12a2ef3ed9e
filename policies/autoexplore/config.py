"""AutoExplore's settings: network, acting, schedule, replay, loss and evaluation (Savov et al. 2025, section A.3)."""

import math
from dataclasses import dataclass
from typing import Literal

from policies.checks import check_at_least, check_positive, check_unit_interval
from policies.rewards import WINDOW_ACTIONS
from policies.schedule import decayed


@dataclass(frozen=True, kw_only=True)
class AutoExploreModuleConfig:
    """Network and acting. Defaults: Savov et al. 2025, section A.3."""

    channels: tuple[int, ...] = (32, 32, 64, 64)  # 3×3 convolutions, each with 2×2 max-pooling
    lstm_size: int = 512
    temperature: float = 1.0  # divides the logits while acting
    # ε falls linearly over 150 epochs of 8 × 200 environment steps.
    epsilon_start: float = 0.1
    epsilon_end: float = 0.01
    epsilon_steps: int = 240_000

    def __post_init__(self) -> None:
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"channels are {self.channels}; allowed: one or more positive numbers")
        check_at_least(1, self, "lstm_size", "epsilon_steps")
        check_positive(self, "temperature")
        check_unit_interval(self, "epsilon_start", "epsilon_end")
        if self.epsilon_end > self.epsilon_start:
            raise ValueError(
                f"epsilon_end is {self.epsilon_end}; allowed: at most epsilon_start ({self.epsilon_start}), "
                "as exploration decays"
            )

    def epsilon(self, env_steps: int) -> float:
        """ε after `env_steps` environment steps, over all environments."""
        return decayed(self.epsilon_start, self.epsilon_end, self.epsilon_steps, env_steps)


@dataclass(frozen=True, kw_only=True)
class AutoExploreLearningConfig:
    """Schedule, replay and loss. Defaults: Savov et al. 2025, section A.3, unless a comment says otherwise.

    An epoch is `steps_per_epoch` steps of every environment of every runner, and `updates_per_epoch` updates. The two
    overlap: once the first epoch's steps are in, each new fragment releases its share of the updates.
    """

    # Schedule of an epoch.
    num_envs: int = 8  # environments per runner, each in its own process
    steps_per_epoch: int = 200  # per environment
    updates_per_epoch: int = 200
    fragment_length: int = 25  # steps per reward request; ours: a request should overlap with play
    max_weights_age: int = 200  # updates; ours: one epoch's, as if play and learning took turns
    # Replay.
    sequences_per_update: int = 128
    sequence_length: int = 20
    # Steps before each sequence that only warm up the stored LSTM state (Kapturowski et al. 2019); the number is ours.
    burn_in: int = 4
    replay_capacity: int = 100_000  # steps; ours: about 1.6 GB at 64×64 with an LSTM of 512
    # Share of the sequences that begin in the latest epoch's play; ours, as V-trace on replay wants some play that is
    # nearly on-policy (Schmitt et al. 2020, 1909.11583). As published: 0.
    newest_share: float = 0.5
    # Rewards are centred and divided by their judge's running spread (ours), or learned from as they are (published).
    reward_scaling: Literal["standardised", "none"] = "standardised"
    # What happens to stored rewards when a new judge (a further trained world model) takes over: "mark" keeps them and
    # scales each by the mean and spread of its own judge's rewards, "ask" has them judged again. Ours.
    old_rewards: Literal["mark", "ask"] = "mark"
    # Loss.
    gamma: float = 0.995
    lambda_: float = 0.95
    rho_clip: float = 1.0  # Espeholt et al. 2018
    value_weight: float = 0.5  # Espeholt et al. 2018
    entropy_weight: float = 0.001
    prior_weight: float = 0.0  # of KL(mean policy ‖ uniform), against collapse onto one action; ours: off
    learning_rate: float = 1e-4
    gradient_norm: float = 10.0
    reward_horizon: int = 100_000  # ours: number of rewards in the running mean and spread
    # Evaluation: the policy with the highest return per step is kept.
    evaluation_every: int = 20  # epochs
    evaluation_steps: int = 200  # per environment; ours: as many as in an epoch
    evaluation_temperature: float = 0.5

    def __post_init__(self) -> None:
        check_at_least(1, self, "num_envs", "steps_per_epoch", "updates_per_epoch", "sequences_per_update")
        check_at_least(1, self, "sequence_length", "replay_capacity", "reward_horizon", "evaluation_every")
        check_at_least(0, self, "burn_in", "value_weight", "entropy_weight", "prior_weight")
        # So that a fragment's lookback lies within the fragment before it, and an evaluation has a reward.
        check_at_least(WINDOW_ACTIONS, self, "fragment_length", "evaluation_steps")
        check_unit_interval(self, "gamma", "lambda_", "newest_share")
        check_positive(self, "rho_clip", "learning_rate", "gradient_norm", "evaluation_temperature")
        if self.reward_scaling not in ("standardised", "none"):
            raise ValueError(f"reward_scaling is {self.reward_scaling!r}; allowed: 'standardised' or 'none'")
        if self.old_rewards not in ("mark", "ask"):
            raise ValueError(f"old_rewards is {self.old_rewards!r}; allowed: 'mark' or 'ask'")
        if self.steps_per_epoch % self.fragment_length:
            raise ValueError(
                f"steps_per_epoch is {self.steps_per_epoch}; "
                f"allowed: multiples of fragment_length ({self.fragment_length})"
            )
        # Two fragments are in flight: one being played, one waiting for rewards. A limit of only their updates would
        # never let the learner catch up on overdue ones.
        fewest = 3 * math.ceil(self.updates_per_epoch * self.fragment_length / self.steps_per_epoch)
        if self.max_weights_age < fewest:
            raise ValueError(
                f"max_weights_age is {self.max_weights_age}; allowed: {fewest} or more, the updates of three fragments"
            )

    def check_capacity(self, *, num_env_runners: int, episode_steps: int) -> None:
        """Checks that the replay holds every unfinished episode, so that none is evicted while it grows.

        Args:
            num_env_runners: runners, each with `num_envs` environments.
            episode_steps: the longest episode.

        Raises:
            ValueError: it is too small.
        """
        environments = max(num_env_runners, 1) * self.num_envs
        needed = environments * (episode_steps + self.fragment_length)
        if self.replay_capacity <= needed:
            raise ValueError(
                f"replay_capacity is {self.replay_capacity}; allowed: more than {needed}, that is {environments} "
                f"environments × ({episode_steps} steps per episode + {self.fragment_length} per fragment)"
            )
