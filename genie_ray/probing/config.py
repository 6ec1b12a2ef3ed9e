"""How a game is played to find out what its actions do."""

from __future__ import annotations

from dataclasses import dataclass

from genie_ray.games.actions import action_names


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """What is played, and for how long. All values are ours."""

    action_set: str = "paper"
    before: str = ""  # buttons that get past a start screen, joined by commas; each is held for 4 steps, then let go
    contexts: int = 8
    steps: int = 36  # for which an action is held; 3 s
    seed: int = 0
    integrations: tuple[str, ...] = ()  # folders with your own games

    def __post_init__(self) -> None:
        action_names(self.action_set)
        for name in ("contexts", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: must be at least 1")
