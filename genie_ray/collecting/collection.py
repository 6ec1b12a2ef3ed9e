"""Collecting play as a replay dataset: RLlib rollout workers, one emulator per process, write Parquet shards.

The work is divided into shards (shards.py), which an elastic pool of workers plays (pool.py). A shard's file exists
only once it is complete, so the shards without a file are the remaining work.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

from genie_ray.base.errors import IncompleteError
from genie_ray.base.progress import console
from genie_ray.base.settings import differences
from genie_ray.collecting.config import CollectionConfig
from genie_ray.collecting.plan import Collection, Policy
from genie_ray.collecting.shards import Shard, Unit, spans
from genie_ray.envs.config import EnvConfig
from genie_ray.envs.procgen import ProcgenEnv
from genie_ray.games.actions import action_names
from genie_ray.games.procgen import PROCGEN_GAMES
from genie_ray.games.roms import add_integrations, require_rom, resolve_game
from genie_ray.replay import writer
from genie_ray.replay.dataset import count_episodes, index_episodes
from genie_ray.replay.metadata import METADATA_FILE, DatasetMetadata, MissingPlay
from genie_ray.storage.paths import StoredPath, resolve

Place = TypeVar("Place", bound=StoredPath)
PLAN_FILE = "_plan.json"
"""What an unfinished collection will hold; the dataset's own metadata replaces it."""


def collect(
    output: Place,
    policy: Policy,
    games: Sequence[str],
    per_game: int,
    config: CollectionConfig,
    env: EnvConfig,
    *,
    unit: Unit = "steps",
    seed: int = 0,
) -> Place:
    """Plays `per_game` steps or episodes of each game and writes a replay dataset. Ray must be running.

    On an object store the workers write there themselves, so no disk has to be shared. Completes a dataset that already
    exists. When interrupted, leaves the complete part as a dataset that says what it lacks.

    Raises:
        ValueError: unknown game, missing ROM or agent, nothing to play, or the directory holds another collection.
        IncompleteError: games were given up; the rest is complete.
    """
    if per_game < 1:
        raise ValueError(f"{unit} per game is {per_game}: must be at least 1")
    add_integrations(env.integrations)
    collection = Collection(
        output=resolve(output),  # workers have their own working directories
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
        if game in PROCGEN_GAMES:
            ProcgenEnv(game, env)  # which checks the settings, and starts nothing yet
    collection.policy.check(collection.games, env)
    place, plan = collection.output, collection.plan
    if _is_complete(place, plan):
        return cast(Place, place)
    place.mkdir(parents=True, exist_ok=True)
    writer.write_text(place / PLAN_FILE, json.dumps(plan, indent=1))
    (place / METADATA_FILE).unlink(missing_ok=True)  # its counts will no longer hold
    try:
        given_up = _play(collection)
    except KeyboardInterrupt:
        _write_metadata(collection, dict.fromkeys(collection.games, "interrupted"))
        left = sum(shard.count for shard in collection.missing())
        total = len(collection.games) * per_game
        console.print(f"{total - left:,} of {total:,} {unit} are complete in {place}", soft_wrap=True)
        raise
    _write_metadata(collection, given_up)
    if given_up:
        listed = "; ".join(f"{game}: {reason}" for game, reason in given_up.items())
        raise IncompleteError(
            f"{len(given_up)} of {len(collection.games)} games were given up, the rest is in {place} ({listed})"
        )
    return cast(Place, place)


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
    """Ends a collection: writes the metadata of what is there, what is missing, and why."""

    counts = count_episodes(index_episodes(collection.output))
    if not counts:
        return
    lacking: dict[str, list[Shard]] = defaultdict(list)
    for shard in collection.missing():
        lacking[shard.game].append(shard)
    size = collection.env.frame_size
    metadata = DatasetMetadata(
        action_names=action_names(collection.env.action_set),
        frame_shape=(size, size, 3),
        policy=collection.policy.name,
        policy_checkpoint=collection.plan["policy_checkpoint"],
        config=collection.plan,
        counts=counts,
        missing={
            game: MissingPlay(unit=collection.unit, ranges=spans(shards), reason=reasons[game])
            for game, shards in lacking.items()
        },
        large_frames=collection.config.large_frames,
    )
    writer.write_metadata(collection.output, metadata)
    (collection.output / PLAN_FILE).unlink()


def _is_complete(output: StoredPath, plan: Mapping[str, Any]) -> bool:
    """Whether the planned dataset is already complete.

    Raises:
        ValueError: the directory holds another one, finished or not.
    """

    complete = False
    if (output / METADATA_FILE).is_file():
        metadata = writer.read_metadata(output)
        present, complete = metadata.config, not metadata.missing
    elif (output / PLAN_FILE).is_file():
        present = json.loads((output / PLAN_FILE).read_text())
    else:
        return False
    changed = differences(present, plan)
    if changed:
        raise ValueError(f"{output} holds another collection ({'; '.join(changed)}): give another directory")
    return complete
