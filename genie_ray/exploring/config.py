"""Settings for training explorers: the agents, rounds of world model training in between, and their environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from genie_ray.base.session import RayConfig
from genie_ray.envs.config import EnvConfig
from genie_ray.rewards.config import RewardConfig
from genie_ray.training.config import TrainingConfig
from policies.autoexplore.config import AutoExploreLearningConfig, AutoExploreModuleConfig
from policies.ppo.config import ExplorerPPOSettings


@dataclass(frozen=True, kw_only=True)
class RoundsConfig:
    """When the world model is trained on explored play. Ours; the published protocol has one round."""

    every: int = 0  # epochs between rounds; 0: the world model stays as it is
    # Whether the agent waits for each round's world model. If not, it plays on and is judged by the previous one, at
    # most for one round: meant for clusters, where the training has processors of its own.
    wait: bool = True
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            batch_size=160, iterations=1_000, warmup_iterations=100, validate_every=250, checkpoint_every=250
        )
    )

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"every = {self.every}: must be 0 (never) or more")


SHARED = "shared"
"""Directory of an agent that plays several games; other agents' directories are named by their game's id."""


@dataclass(frozen=True, kw_only=True)
class ExplorationConfig:
    """Explorers. Defaults: paper, A.3."""

    epochs: int = 300
    checkpoint_every: int = 20  # epochs
    num_env_runners: int = 1  # rollout workers, each with learning.num_envs emulators
    shared: bool = False  # one explorer for all games instead of one per game; ours
    # PPO on the newest play with held actions (ours), or the published V-trace on replayed sequences.
    algorithm: Literal["ppo", "vtrace"] = "ppo"
    ppo: ExplorerPPOSettings = field(default_factory=ExplorerPPOSettings)
    network: AutoExploreModuleConfig = field(default_factory=AutoExploreModuleConfig)  # of "vtrace"
    learning: AutoExploreLearningConfig = field(default_factory=AutoExploreLearningConfig)  # of "vtrace"
    rounds: RoundsConfig = field(default_factory=RoundsConfig)

    def __post_init__(self) -> None:
        for name in ("epochs", "checkpoint_every", "num_env_runners"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if 2 * self.rounds.every > self.epochs:
            raise ValueError(
                f"rounds.every = {self.rounds.every}: must be at most half of epochs = {self.epochs}, so that each "
                "round's world model can judge for a whole round"
            )
        unread = ("network", "learning") if self.algorithm == "ppo" else ("ppo",)
        for name in unread:
            if getattr(self, name) != type(getattr(self, name))():
                raise ValueError(f"{name} is set, but algorithm = {self.algorithm!r} does not read it")

    @property
    def num_envs(self) -> int:
        """Environments per rollout worker."""
        return self.ppo.num_envs if self.algorithm == "ppo" else self.learning.num_envs

    @property
    def epoch_steps(self) -> int:
        """Environment steps of an epoch, over all environments; fewer where an episode ends while an action is held."""
        ppo, learning = self.ppo, self.learning
        each = ppo.fragment_length * ppo.hold if self.algorithm == "ppo" else learning.steps_per_epoch
        return self.num_env_runners * self.num_envs * each

    @property
    def keeps_best(self) -> bool:
        """Whether the policy with the best evaluation is the result, not the last one."""
        return self.algorithm == "vtrace" or self.ppo.keep == "return"

    def agents(self, games: Sequence[str]) -> dict[str, list[str]]:
        """The agents' directories, each with the games it plays."""
        return {SHARED: list(games)} if self.shared else {game: [game] for game in games}


@dataclass(frozen=True, kw_only=True)
class ExplorersConfig:
    """Explorers, their games, their judge, and where Ray runs."""

    games: tuple[str, ...] = ("Kangaroo-Atari2600-v0", "Hero-Atari2600-v0")  # or queries, selections: games/catalog.py
    catalog: tuple[str, ...] = ()  # CSV files of game labels, read after ours; its selections need RetroAct's
    seed: int = 0
    env: EnvConfig = field(default_factory=EnvConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    ray: RayConfig = field(default_factory=RayConfig)

    @property
    def fewest_rollout_workers(self) -> int:
        """The rollout workers that an explorer cannot do without."""
        return self.ray.rollout_workers_min or self.exploration.num_env_runners

    @property
    def training_steps(self) -> int:
        """Environment steps of each game that its explorer plays in training."""
        exploration = self.exploration
        return exploration.epochs * exploration.epoch_steps // (len(self.games) if exploration.shared else 1)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed = {self.seed}: must be in [0, 2**63)")
        if not self.games:
            raise ValueError("games is empty: name at least one game")
        if len(set(self.games)) < len(self.games):
            raise ValueError(f"games lists a game twice: {', '.join(self.games)}")
        exploration = self.exploration
        if self.ray.rollout_workers_min > exploration.num_env_runners:
            raise ValueError(
                f"ray.rollout_workers_min = {self.ray.rollout_workers_min}: must be at most "
                f"exploration.num_env_runners = {exploration.num_env_runners}"
            )
        if self.reward.kind == "learning_progress" and not exploration.rounds.every:
            raise ValueError(
                "reward.kind = 'learning_progress' rewards what is learned in rounds: exploration.rounds.every = 0, "
                "must be at least 1"
            )
        if exploration.algorithm == "ppo":
            return
        try:
            exploration.learning.check_capacity(
                num_env_runners=exploration.num_env_runners, episode_steps=self.env.max_episode_steps
            )
        except ValueError as error:
            raise ValueError(f"exploration.learning.{error}") from None
        if exploration.learning.old_rewards == "ask" and self.reward.remembers:
            raise ValueError(
                "exploration.learning.old_rewards = 'ask': with this reward.kind or reward.novelty the judge remembers "
                "play, so it must see it only once: use 'mark'"
            )
