"""Play recorded as a replay dataset: RLlib rollout workers, one emulator per process, write Parquet shards.

The work is cut into shards: exactly `steps_per_shard` consecutive steps of one game, of which the last episode is cut
short. A shard depends on nothing but (policy, game, seed, shard number), so shards are played anywhere, in any order,
and again after a crash, and always come out the same. A shard's file exists when it is complete: what is left to do is
what was asked for minus what is there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genie_ray.envs.retro import EnvConfig
from genie_ray.errors import cause_of
from genie_ray.files import write_atomically
from genie_ray.progress import progress_bar

if TYPE_CHECKING:
    from genie_ray.replay.schema import LargeFrameLayout

PLAN_FILE = "_plan.json"
"""What an unfinished collection is going to hold; its place is taken by the dataset's own metadata."""


@dataclass(frozen=True, kw_only=True)
class CollectionConfig:
    """How much is played, by how many workers. Counts are environment steps per game."""

    random_steps: int = 350_000  # of random play for the base model; ours: 500 full episodes
    finetune_steps: int = 350_000  # of explored play, and as many of fresh random play to compare with
    test_steps: int = 700_000  # paper, section 5: 1,000 episodes of 700 steps
    steps_per_shard: int = 10_000
    workers: int = 2  # rollout workers, one emulator each
    explorer_epsilon: float = 0.01  # paper, A.3: where AutoExplore's ε ends
    explorer_temperature: float = 1.0  # paper, A.3
    test_epsilon: float = 0.3  # ours: share of random actions in the test agents' play
    large_frame_every: int = 0  # steps between the large frames that an upscaler learns from; 0: none are stored
    large_frame_size: int = 256  # pixels, height and width; paper, supplement

    def __post_init__(self) -> None:
        for name in ("random_steps", "finetune_steps", "test_steps", "steps_per_shard", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
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
class Shard:
    """A piece of work: that many steps of one game."""

    game: str
    number: int
    steps: int
    first_step: int  # steps of the game in the shards before

    @property
    def name(self) -> str:
        """The file's name, without suffix."""
        return f"shard-{self.number:05d}"


def plan_shards(games: Sequence[str], steps_per_game: int, steps_per_shard: int) -> list[Shard]:
    """All shards of a collection, the games taking turns."""
    return [
        Shard(
            game=game,
            number=first // steps_per_shard,
            steps=min(steps_per_shard, steps_per_game - first),
            first_step=first,
        )
        for first in range(0, steps_per_game, steps_per_shard)
        for game in games
    ]


def collect(
    output: Path,
    policy: Policy,
    games: Sequence[str],
    steps_per_game: int,
    config: CollectionConfig,
    env: EnvConfig,
    *,
    seed: int = 0,
) -> Path:
    """Plays games and leaves a replay dataset; a dataset that is there is completed. Needs a running Ray.

    Raises:
        ValueError: unknown game, missing ROM or agent, or the directory holds another collection.
    """
    import ray
    from ray.util import ActorPool

    from genie_ray.envs.actions import ACTION_SETS
    from genie_ray.envs.roms import add_integrations, require_rom, resolve_game
    from genie_ray.replay import writer
    from genie_ray.replay.dataset import count_episodes, index_episodes
    from genie_ray.rollout_worker import RolloutWorker

    output = output.resolve()  # a worker has a working directory of its own
    policy = dataclasses.replace(policy, directory=policy.directory and policy.directory.resolve())
    add_integrations(env.integrations)
    games = [resolve_game(game) for game in games]
    for game in games:
        require_rom(game)
    fingerprint = policy.fingerprint(games)
    plan = {
        "policy": policy.name,
        "policy_checkpoint": fingerprint,
        "epsilon": policy.epsilon,
        "temperature": policy.temperature,
        "games": games,
        "steps_per_game": steps_per_game,
        "steps_per_shard": config.steps_per_shard,
        "seed": seed,
        "env": asdict(env),
    }
    large_frames = config.large_frames
    if large_frames is not None:
        plan["large_frames"] = asdict(large_frames)
    if _is_complete(output, plan):
        return output
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / PLAN_FILE, lambda path: path.write_text(json.dumps(plan, indent=1)))

    shards = plan_shards(games, steps_per_game, config.steps_per_shard)
    missing = [s for s in shards if not (output / f"game={s.game}" / f"{s.name}.parquet").exists()]
    worker = ray.remote(max_restarts=-1, max_task_retries=-1, num_cpus=1)(RolloutWorker)
    count = min(config.workers, len(missing))
    pool = ActorPool([worker.remote(output, policy, env, seed, large_frames) for _ in range(count)])
    total, done = sum(s.steps for s in shards), sum(s.steps for s in shards) - sum(s.steps for s in missing)
    with progress_bar(f"collect {policy.name} play", total) as bar:
        bar.update(done)
        try:
            for steps in pool.map_unordered(lambda actor, shard: actor.play.remote(shard), missing):
                done += steps
                bar.update(done)
        except Exception as error:
            raise cause_of(error) from error
    size = env.frame_size
    metadata = writer.DatasetMetadata(
        action_names=ACTION_SETS[env.action_set],
        frame_shape=(size, size, 3),
        policy=policy.name,
        policy_checkpoint=fingerprint,
        config=plan,
        counts=count_episodes(index_episodes(output)),
        large_frames=large_frames,
    )
    writer.write_metadata(output, metadata)
    (output / PLAN_FILE).unlink()
    return output


def _is_complete(output: Path, plan: dict[str, Any]) -> bool:
    """Whether the planned dataset is there already.

    Raises:
        ValueError: the directory holds another one, finished or not.
    """
    from genie_ray.config import differences
    from genie_ray.replay import writer

    complete = (output / writer.METADATA_FILE).exists()
    if complete:
        present = writer.read_metadata(output).config
    elif (output / PLAN_FILE).exists():
        present = json.loads((output / PLAN_FILE).read_text())
    else:
        return False
    changed = differences(present, json.loads(json.dumps(plan)))
    if changed:
        raise ValueError(f"{output} holds another collection ({'; '.join(changed)}): give another directory")
    return complete
