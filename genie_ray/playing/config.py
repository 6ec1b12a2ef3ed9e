"""How test agents are trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from policies.ppo.config import PPOSettings


@dataclass(frozen=True, kw_only=True)
class PlayerConfig:
    """One test agent per game."""

    iterations: int = 1_000  # of num_envs × fragment_length steps each; ours: about a million steps
    checkpoint_every: int = 20
    ppo: PPOSettings = field(default_factory=PPOSettings)

    def __post_init__(self) -> None:
        for name in ("iterations", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
