"""The plan of a collection: who plays how much of which games, and everything else that determines the dataset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.shards import Shard, Unit, plan_shards
from genie_ray.envs.config import EnvConfig
from genie_ray.games.actions import action_names

if TYPE_CHECKING:
    from genie_ray.storage.paths import StoredPath


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Who plays: random actions, or the agents of a directory, `<directory>/<game>/module`, one per game.

    Games without their own agent are played by `<directory>/shared/module`.
    """

    name: str  # part of the episodes' ids
    directory: StoredPath | None = None
    epsilon: float = 0.0  # share of random actions mixed in
    temperature: float = 1.0
    weights: tuple[float, ...] = ()  # of random play: how frequent each action is; (): all alike
    hold: int = 1  # steps that each action of random play is held; an agent brings its own

    def __post_init__(self) -> None:
        if self.hold < 1:
            raise ValueError(f"hold = {self.hold}: must be at least 1")
        if self.hold > 1 and self.directory is not None:
            raise ValueError(
                f"hold = {self.hold} with the agents of {self.directory}: must be 1, "
                "because a trained policy brings its own hold"
            )

    def checkpoint(self, game: str) -> StoredPath | None:
        """The game's agent.

        Raises:
            ValueError: the directory has none for this game.
        """
        if self.directory is None:
            return None
        own, shared = self.directory / game / "module", self.directory / "shared" / "module"
        if not own.is_dir() and not shared.is_dir():
            raise ValueError(f"no agent for {game} in {self.directory}: {own} is missing")
        return own if own.is_dir() else shared

    def check(self, games: Sequence[str], env: EnvConfig) -> None:
        """Requires the agents to be made for these games, and for what they would see and do there.

        Raises:
            ValueError: one is not.
        """
        if self.directory is None:
            return
        from genie_ray.storage.agents import read_policy  # imports PyTorch

        names = list(action_names(env.action_set))
        for game in games:
            path = self.checkpoint(game)
            assert path is not None
            policy = read_policy(path)
            if game not in policy.get("games", [game]):
                raise ValueError(f"{path} plays {', '.join(policy['games'])}, not {game}")
            if (theirs := policy.get("action_names", names)) != names:
                raise ValueError(
                    f"{path} has the actions {', '.join(theirs)}; env.action_set = {env.action_set} has "
                    f"{', '.join(names)}"
                )
            if (size := policy.get("frame_shape", [env.frame_size])[0]) != env.frame_size:
                raise ValueError(f"{path} sees frames of {size} pixels; env.frame_size is {env.frame_size}")

    def fingerprint(self, games: Sequence[str]) -> str | None:
        """SHA-256 of the agents' weights; None for random play."""
        if self.directory is None:
            return None
        from policies.saved import POLICY_FILE, WEIGHTS_FILE  # imports PyTorch

        digest = hashlib.sha256()
        for game in games:
            path = self.checkpoint(game)
            assert path is not None
            for name in (POLICY_FILE, WEIGHTS_FILE):
                digest.update((path / name).read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What is played, by whom, and where it is written."""

    output: StoredPath
    policy: Policy
    games: tuple[str, ...]
    per_game: int
    unit: Unit
    config: CollectionConfig
    env: EnvConfig
    seed: int

    @property
    def plan(self) -> dict[str, Any]:
        """Everything that determines the dataset's content, as plain JSON."""
        plan: dict[str, Any] = {
            "policy": self.policy.name,
            "policy_checkpoint": self.policy.fingerprint(self.games),
            "epsilon": self.policy.epsilon,
            "temperature": self.policy.temperature,
            "games": self.games,
            f"{self.unit}_per_game": self.per_game,
            "steps_per_shard": self.config.steps_per_shard,
            "seed": self.seed,
            "env": asdict(self.env),
        }
        if self.policy.weights:
            plan["weights"] = self.policy.weights
        if self.policy.hold > 1:
            plan["hold"] = self.policy.hold
        if self.config.large_frames is not None:
            plan["large_frames"] = asdict(self.config.large_frames)
        return json.loads(json.dumps(plan))

    @property
    def shards(self) -> list[Shard]:
        """All shards of the collection."""
        steps = self.config.steps_per_shard
        per_shard = steps if self.unit == "steps" else max(1, steps // self.env.max_episode_steps)
        return plan_shards(self.games, self.per_game, per_shard, self.unit)

    def missing(self) -> list[Shard]:
        """The shards that remain to be played."""
        from genie_ray.replay.writer import shard_name, shard_paths

        there = set(map(shard_name, shard_paths(self.output)))
        return [shard for shard in self.shards if f"game={shard.game}/{shard.name}.parquet" not in there]
