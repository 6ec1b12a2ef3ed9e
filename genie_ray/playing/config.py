"""How test agents are trained."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from policies.agent57.config import Agent57Settings
from policies.ppo.config import PPOSettings


@dataclass(frozen=True, kw_only=True)
class PlayerConfig:
    """One test agent per game."""

    kind: Literal["ppo", "agent57", "r2d2"] = "ppo"  # r2d2: agent57 without novelty, for games that reward often
    # Of ppo.num_envs × ppo.fragment_length decisions, or of agent57.play.steps_per_iteration steps each; ours: about a
    # million steps of PPO.
    iterations: int = 1_000
    checkpoint_every: int = 20
    ppo: PPOSettings = field(default_factory=PPOSettings)
    agent57: Agent57Settings = field(default_factory=Agent57Settings)
    evaluation_every: int = 10  # iterations between evaluations of agent57 and r2d2; the best agent is kept
    evaluation_episodes: int = 8
    evaluation_epsilon: float = 0.01
    # Whether it is a test agent: episodes of it, with `check_epsilon` of random actions, against as many of chance.
    check_episodes: int = 24
    check_epsilon: float = 0.15  # the published test sets' share of random actions

    def __post_init__(self) -> None:
        if self.kind not in ("ppo", "agent57", "r2d2"):
            raise ValueError(f"kind = {self.kind!r}: must be 'ppo', 'agent57' or 'r2d2'")
        for name in ("iterations", "checkpoint_every", "evaluation_every", "evaluation_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.check_episodes < 2:
            raise ValueError(f"check_episodes = {self.check_episodes}: must be at least 2, or there is no interval")
        for name in ("evaluation_epsilon", "check_epsilon"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be 0 to 1")

    def recurrent(self) -> Agent57Settings:
        """The settings of `agent57`, or of `r2d2`."""
        if self.kind == "agent57":
            return self.agent57
        return replace(self.agent57, novelty=replace(self.agent57.novelty, enabled=False))
