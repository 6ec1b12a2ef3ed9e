"""Play recorded as a replay dataset: RLlib rollout workers, one emulator per process, write Parquet shards.

The work is cut into shards (shards.py), which an elastic pool of workers plays (worker_pool.py). A shard's file exists
when it is complete: what is left to do is what was asked for minus what is there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genie_ray.base.errors import IncompleteError
from genie_ray.base.files import write_atomically
from genie_ray.base.progress import console
from genie_ray.collecting.shards import Shard, Unit, plan_shards, spans
from genie_ray.envs.retro import EnvConfig

if TYPE_CHECKING:
    from genie_ray.replay.schema import LargeFrameLayout

PLAN_FILE = "_plan.json"
"""What an unfinished collection is going to hold; its place is taken by the dataset's own metadata."""


@dataclass(frozen=True, kw_only=True)
class CollectionConfig:
    """How much is played, by how many workers, and how patient they are. Counts are environment steps per game."""

    random_steps: int = 350_000  # of random play for the base model; ours: 500 full episodes
    finetune_steps: int = 350_000  # of explored play, and as many of fresh random play to compare with
    test_steps: int = 700_000  # paper, section 5: 1,000 episodes of 700 steps
    steps_per_shard: int = 10_000  # where episodes are counted: as many as take so many steps at most
    workers_min: int = 1  # rollout workers, one emulator each, that the cluster is asked for, whatever it has free
    workers_max: int = 2  # rollout workers at most: more are started while CPUs are free
    step_timeout_s: float = 120.0  # after so long without a step, a game hangs
    tries: int = 3  # of a shard, before its game is given up
    # A worker above this is replaced between two shards: Stella, the Atari emulator, leaks 0.14 MB at each reset.
    worker_memory_mb: int = 1_500
    explorer_epsilon: float = 0.01  # paper, A.3: where AutoExplore's ε ends
    explorer_temperature: float = 1.0  # paper, A.3
    test_epsilon: float = 0.3  # ours: share of random actions in the test agents' play
    large_frame_every: int = 0  # steps between the large frames that an upscaler learns from; 0: none are stored
    large_frame_size: int = 256  # pixels, height and width; paper, supplement

    def __post_init__(self) -> None:
        counts = ("random_steps", "finetune_steps", "test_steps", "steps_per_shard")
        for name in (*counts, "workers_min", "tries", "worker_memory_mb"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.workers_max < self.workers_min:
            raise ValueError(f"workers_max = {self.workers_max}: must be at least workers_min, {self.workers_min}")
        if self.step_timeout_s <= 0:
            raise ValueError(f"step_timeout_s = {self.step_timeout_s}: must be above 0")
        for name in ("explorer_epsilon", "test_epsilon"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be in [0, 1]")
        if self.explorer_temperature <= 0:
            raise ValueError(f"explorer_temperature = {self.explorer_temperature}: must be above 0")
        if self.large_frame_every < 0:
            raise ValueError(f"large_frame_every = {self.large_frame_every}: must be 0 or more")
        if self.large_frame_size < 1:
            raise ValueError(f"large_frame_size = {self.large_frame_size}: must be at least 1")

    @property
    def large_frames(self) -> LargeFrameLayout | None:
        """Which large frames are stored, if any."""
        from genie_ray.replay.schema import LargeFrameLayout

        if not self.large_frame_every:
            return None
        return LargeFrameLayout(size=self.large_frame_size, every=self.large_frame_every)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Who plays: uniform random actions, or the agents of a directory, `<directory>/<game>/module`, one per game.

    Games without one of their own are played by `<directory>/shared/module`.
    """

    name: str  # part of the episodes' ids
    directory: Path | None = None
    epsilon: float = 0.0  # share of random actions mixed in
    temperature: float = 1.0

    def checkpoint(self, game: str) -> Path | None:
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

    def fingerprint(self, games: Sequence[str]) -> str | None:
        """SHA-256 of the agents' weights; None for random play."""
        if self.directory is None:
            return None
        digest = hashlib.sha256()
        for game in games:
            path = self.checkpoint(game)
            assert path is not None
            digest.update((path / "module_state.pkl").read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Collection:
    """What is played, by whom, and where it is left."""

    output: Path
    policy: Policy
    games: tuple[str, ...]
    per_game: int
    unit: Unit
    config: CollectionConfig
    env: EnvConfig
    seed: int

    @property
    def plan(self) -> dict[str, Any]:
        """Everything that decides the dataset's content, as plain JSON."""
        plan = {
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
        if self.config.large_frames is not None:
            plan["large_frames"] = asdict(self.config.large_frames)
        return json.loads(json.dumps(plan))

    @property
    def shards(self) -> list[Shard]:
        """All of the work."""
        steps = self.config.steps_per_shard
        per_shard = steps if self.unit == "steps" else max(1, steps // self.env.max_episode_steps)
        return plan_shards(self.games, self.per_game, per_shard, self.unit)

    def missing(self) -> list[Shard]:
        """The work that is left."""
        return [s for s in self.shards if not (self.output / f"game={s.game}" / f"{s.name}.parquet").exists()]


def collect(
    output: Path,
    policy: Policy,
    games: Sequence[str],
    per_game: int,
    config: CollectionConfig,
    env: EnvConfig,
    *,
    unit: Unit = "steps",
    seed: int = 0,
) -> Path:
    """Plays so many steps or episodes of each game and leaves a replay dataset. Needs a running Ray.

    A dataset that is there is completed. When interrupted, what is complete is left as a dataset that says what it
    lacks.

    Raises:
        ValueError: unknown game, missing ROM or agent, nothing to play, or the directory holds another collection.
        IncompleteError: games were given up; the rest is there.
    """
    from genie_ray.games.roms import add_integrations, require_rom, resolve_game
    from genie_ray.replay.writer import METADATA_FILE

    if per_game < 1:
        raise ValueError(f"{unit} of each game: {per_game}, must be at least 1")
    add_integrations(env.integrations)
    collection = Collection(
        output=output.resolve(),  # a worker has a working directory of its own
        policy=dataclasses.replace(policy, directory=policy.directory and policy.directory.resolve()),
        games=tuple(dict.fromkeys(resolve_game(game) for game in games)),
        per_game=per_game,
        unit=unit,
        config=config,
        env=env,
        seed=seed,
    )
    for game in collection.games:
        require_rom(game)
    output, plan = collection.output, collection.plan
    if _is_complete(output, plan):
        return output
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / PLAN_FILE, lambda path: path.write_text(json.dumps(plan, indent=1)))
    (output / METADATA_FILE).unlink(missing_ok=True)  # it counted what was there, and there will be more
    try:
        given_up = _play(collection)
    except KeyboardInterrupt:
        _write_metadata(collection, dict.fromkeys(collection.games, "interrupted"))
        left = sum(shard.count for shard in collection.missing())
        total = len(collection.games) * per_game
        console.print(f"{total - left:,} of {total:,} {unit} are complete in {output}", soft_wrap=True)
        raise
    _write_metadata(collection, given_up)
    if given_up:
        listed = "; ".join(f"{game}: {reason}" for game, reason in given_up.items())
        raise IncompleteError(
            f"{len(given_up)} of {len(collection.games)} games were given up, the rest is in {output} ({listed})"
        )
    return output


def _play(collection: Collection) -> dict[str, str]:
    """Plays what is missing; returns the games that were given up, and why."""
    import ray

    from genie_ray.collecting.pool import WorkerPool
    from genie_ray.collecting.progress import GameBars
    from genie_ray.collecting.worker import RolloutWorker

    missing = collection.missing()
    wanted = dict.fromkeys(collection.games, collection.per_game)
    there = wanted.copy()
    for shard in missing:
        there[shard.game] -= shard.count
    worker = ray.remote(num_cpus=1, max_restarts=0, concurrency_groups={"watch": 1})(RolloutWorker)
    bars = GameBars(f"collect {collection.policy.name} play", collection.unit, wanted, there)
    with bars:
        pool = WorkerPool(
            start_worker=lambda: worker.remote(collection),
            config=collection.config,
            bars=bars,
        )
        pool.play(missing)
    return pool.given_up


def _write_metadata(collection: Collection, reasons: Mapping[str, str]) -> None:
    """Ends a collection: its dataset is what is there, and says what is not, and why."""
    from genie_ray.games.actions import action_names
    from genie_ray.replay import writer
    from genie_ray.replay.dataset import count_episodes, index_episodes

    counts = count_episodes(index_episodes(collection.output))
    if not counts:
        return
    lacking: dict[str, list[Shard]] = defaultdict(list)
    for shard in collection.missing():
        lacking[shard.game].append(shard)
    size = collection.env.frame_size
    metadata = writer.DatasetMetadata(
        action_names=action_names(collection.env.action_set),
        frame_shape=(size, size, 3),
        policy=collection.policy.name,
        policy_checkpoint=collection.plan["policy_checkpoint"],
        config=collection.plan,
        counts=counts,
        missing={
            game: writer.MissingPlay(unit=collection.unit, ranges=spans(shards), reason=reasons[game])
            for game, shards in lacking.items()
        },
        large_frames=collection.config.large_frames,
    )
    writer.write_metadata(collection.output, metadata)
    (collection.output / PLAN_FILE).unlink()


def _is_complete(output: Path, plan: Mapping[str, Any]) -> bool:
    """Whether the planned dataset is there already.

    Raises:
        ValueError: the directory holds another one, finished or not.
    """
    from genie_ray.config import differences
    from genie_ray.replay import writer

    complete = False
    if (output / writer.METADATA_FILE).exists():
        metadata = writer.read_metadata(output)
        present, complete = metadata.config, not metadata.missing
    elif (output / PLAN_FILE).exists():
        present = json.loads((output / PLAN_FILE).read_text())
    else:
        return False
    changed = differences(present, plan)
    if changed:
        raise ValueError(f"{output} holds another collection ({'; '.join(changed)}): give another directory")
    return complete
