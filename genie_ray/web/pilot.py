"""Saved policies that play for a person: those that `genie-ray collect --policy` takes.

A policy sees the frames of the game or, as an agent in its world model (Ha & Schmidhuber, 2018, arXiv 1803.10122),
those that the model predicts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from genie_ray.base.session import quiet_libraries
from genie_ray.base.settings import build
from genie_ray.collecting.plan import Policy
from genie_ray.envs.config import EnvConfig
from genie_ray.replay.dataset import ReplayDataset

if TYPE_CHECKING:
    from policies.play.acting import Act

Sees = Literal["game", "model"]
"""Whose frames a policy sees."""


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """A policy that plays, from when it took over."""

    name: str
    sees: Sees
    act: Act  # from the frame, and the game's reward for the action before, to an action and its log-probability


class Pilots:
    """The policies of a directory, one a game; sessions share them.

    Args:
        directory: of trained agents, `<directory>/<game>/module`, or `shared/module` for all.
        dataset: what play starts from.
        games: those that are played.

    Raises:
        ValueError: a game has no policy, or one for other games, actions or frames.
    """

    def __init__(self, directory: Path, dataset: ReplayDataset, games: Iterable[str]) -> None:
        self.name, policy = directory.name, Policy(name=directory.name, directory=directory)
        if "env" not in dataset.metadata.config:
            raise ValueError(
                f"{dataset.root} does not say in which environment it was recorded, nor what a policy sees"
            )
        paths = {game: path for game in sorted(set(games)) if (path := policy.checkpoint(game))}
        policy.check(list(paths), build(EnvConfig, dataset.metadata.config["env"]))
        from genie_ray.storage.agents import load_policy  # imports RLlib

        quiet_libraries()
        exploration = {"epsilon": policy.epsilon, "temperature": policy.temperature}  # as collecting by default
        self._modules = {game: load_policy(path, **exploration).eval() for game, path in paths.items()}

    def start(self, game: str, sees: Sees) -> Pilot:
        """A policy that takes over; it remembers nothing of what was played before.

        Raises:
            ValueError: nothing that a policy can see.
        """
        from policies.play.acting import learned

        if sees not in get_args(Sees):
            raise ValueError(f"drive is {sees!r}; allowed: null, {', '.join(get_args(Sees))}")
        return Pilot(name=self.name, sees=sees, act=learned(self._modules[game]))
