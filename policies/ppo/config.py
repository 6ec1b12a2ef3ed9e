"""Settings of PPO (Schulman et al. 2017, 1707.06347), and of the explorer that learns with it."""

from dataclasses import dataclass
from typing import Literal

from policies.checks import check_at_least, check_positive, check_unit_interval
from policies.rewards import WINDOW_ACTIONS
from policies.schedule import decayed


@dataclass(frozen=True, kw_only=True)
class PPOSettings:
    """Sizes of a PPO run.

    Defaults: ours, for a few ten thousand to a million decisions; those of the paper's Atari column (table 5), made for
    ten million, are named beside.
    """

    num_envs: int = 8  # environments per runner
    hold: int = 4  # steps for which an action is held
    fragment_length: int = 64  # decisions per environment between updates; paper: 128
    minibatch_size: int = 128  # paper: 256
    passes: int = 3  # over a fragment
    learning_rate: float = 1e-3  # paper: 2.5e-4
    gamma: float = 0.99
    lambda_: float = 0.95
    clip: float = 0.2  # paper: 0.1
    value_weight: float = 0.5
    entropy_weight: float = 0.01
    gradient_norm: float = 0.5  # as in the implementation behind the paper's results
    epsilon: float = 0.01  # ours: share of random actions in training; of an explorer, once it has fallen
    # Convolutions (channels, kernel, stride), the first two of Mnih et al. 2013, and the hidden layer after them.
    filters: tuple[tuple[int, int, int], ...] = ((16, 8, 4), (32, 4, 2))
    hidden: int = 256

    def __post_init__(self) -> None:
        check_at_least(1, self, "num_envs", "hold", "fragment_length", "minibatch_size", "passes", "hidden")
        check_at_least(0, self, "entropy_weight", "value_weight")
        check_positive(self, "learning_rate", "clip", "gradient_norm")
        check_unit_interval(self, "gamma", "lambda_", "epsilon")
        if self.minibatch_size > self.num_envs * self.fragment_length:
            raise ValueError(
                f"minibatch_size is {self.minibatch_size}; allowed: at most num_envs × fragment_length = "
                f"{self.num_envs * self.fragment_length}"
            )
        if not self.filters:
            raise ValueError("filters are empty; allowed: one or more (channels, kernel, stride)")

    def epsilon_after(self, env_steps: int) -> float:
        """Share of random actions after `env_steps` environment steps, over all environments."""
        return self.epsilon


@dataclass(frozen=True, kw_only=True)
class ExplorerPPOSettings(PPOSettings):
    """PPO paid by a judge. An epoch is one fragment of every runner, and the updates on it. All ours."""

    # Whether returns end with the episode. If not, death costs nothing but time, and rewards are centred, so that a
    # return says how much better than average play is (RND, Burda et al. 2018, section 2.3).
    episodic: bool = False
    # ε falls linearly from `epsilon_start` to `epsilon` over `epsilon_steps` environment steps; 0: always `epsilon`.
    epsilon_start: float = 0.1
    epsilon_steps: int = 0
    reward_horizon: int = 2_000  # decisions that the running spread of returns remembers
    # Evaluation. A reward that learning uses up says nothing on a policy's worth, so the last policy is kept.
    keep: Literal["last", "return"] = "last"
    evaluation_every: int = 20  # epochs
    evaluation_steps: int = 50  # decisions per environment
    evaluation_temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(0, self, "epsilon_steps")
        check_unit_interval(self, "epsilon_start")
        check_at_least(1, self, "reward_horizon", "evaluation_every")
        check_at_least(WINDOW_ACTIONS, self, "fragment_length", "evaluation_steps")  # so that there is a reward
        check_positive(self, "evaluation_temperature")
        if self.keep not in ("last", "return"):
            raise ValueError(f"keep is {self.keep!r}; allowed: 'last' or 'return'")
        if self.epsilon_steps and self.epsilon > self.epsilon_start:
            raise ValueError(
                f"epsilon is {self.epsilon}; allowed: at most epsilon_start ({self.epsilon_start}), "
                "as exploration decays"
            )

    def epsilon_after(self, env_steps: int) -> float:
        return decayed(self.epsilon_start, self.epsilon, self.epsilon_steps, env_steps)
