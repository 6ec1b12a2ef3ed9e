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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genie_ray.envs.retro import EnvConfig
from genie_ray.errors import cause_of
from genie_ray.files import write_atomically
from genie_ray.progress import progress_bar
from genie_ray.seeding import seed_of

if TYPE_CHECKING:
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
    from ray.rllib.env.single_agent_episode import SingleAgentEpisode

    from genie_ray.replay.schema import Episode

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

    def __post_init__(self) -> None:
        for name in ("random_steps", "finetune_steps", "test_steps", "steps_per_shard", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        for name in ("explorer_epsilon", "test_epsilon"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be in [0, 1]")
        if self.explorer_temperature <= 0:
            raise ValueError(f"explorer_temperature = {self.explorer_temperature}: must be above 0")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Who plays: uniform random actions, or the agents of a directory, `<directory>/<game>/module`, one per game."""

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
        path = self.directory / game / "module"
        if not path.is_dir():
            raise ValueError(f"no agent for {game} in {self.directory}: {path} is missing")
        return path

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
    from genie_ray.envs.roms import require_rom, resolve_game
    from genie_ray.replay import writer
    from genie_ray.replay.dataset import count_episodes, index_episodes

    output = output.resolve()  # a worker has a working directory of its own
    policy = dataclasses.replace(policy, directory=policy.directory and policy.directory.resolve())
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
    if _is_complete(output, plan):
        return output
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(output / PLAN_FILE, lambda path: path.write_text(json.dumps(plan, indent=1)))

    shards = plan_shards(games, steps_per_game, config.steps_per_shard)
    missing = [s for s in shards if not (output / f"game={s.game}" / f"{s.name}.parquet").exists()]
    worker = ray.remote(max_restarts=-1, max_task_retries=-1, num_cpus=1)(RolloutWorker)
    count = min(config.workers, len(missing))
    pool = ActorPool([worker.remote(output, policy, env, seed) for _ in range(count)])
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
    )
    writer.write_metadata(output, metadata)
    (output / PLAN_FILE).unlink()
    return output


class RolloutWorker:
    """Ray actor that plays shards in one RLlib EnvRunner, which it rebuilds when the game changes."""

    def __init__(self, output: Path, policy: Policy, env: EnvConfig, seed: int) -> None:
        import torch

        torch.set_num_threads(1)
        self._output, self._policy, self._env, self._seed = output, policy, env, seed
        self._game: str | None = None
        self._runner: SingleAgentEnvRunner | None = None

    def play(self, shard: Shard) -> int:
        """Plays a shard and writes its file; returns its steps."""
        from genie_ray.replay import writer

        if shard.game != self._game:
            if self._runner is not None:
                self._runner.stop()  # one emulator per process
            self._runner, self._game = _build_runner(self._policy, shard.game, self._env), shard.game
        writer.write_shard(self._output, shard.game, shard.name, self._episodes(shard))
        return shard.steps

    def _episodes(self, shard: Shard) -> Iterator[Episode]:
        """Whole episodes, each under a seed of its own, until the shard's steps are played; the last one is cut."""
        import torch

        assert self._runner is not None
        played = 0
        while played < shard.steps:
            index = shard.first_step + played
            torch.manual_seed(seed_of(self._seed, self._policy.name, shard.game, index))
            (episode,) = self._runner.sample(num_episodes=1, explore=True)
            length = min(len(episode), shard.steps - played)
            yield to_replay_episode(episode, shard.game, self._policy.name, self._seed, index, length)
            played += length


def to_replay_episode(
    episode: SingleAgentEpisode, game: str, policy: str, seed: int, index: int, length: int
) -> Episode:
    """The first `length` steps of an RLlib episode as the dataset stores it."""
    import numpy as np
    from ray.rllib.core.columns import Columns

    from genie_ray.replay.schema import Episode, episode_id

    whole = length == len(episode)
    return Episode(
        episode_id=episode_id(game, policy, seed, index),
        game=game,
        frames=np.asarray(episode.get_observations(slice(0, length + 1))),
        actions=np.asarray(episode.get_actions(slice(0, length)), np.int8),
        action_logp=np.asarray(episode.get_extra_model_outputs(Columns.ACTION_LOGP, slice(0, length)), np.float32),
        reward_env=np.asarray(episode.get_rewards(slice(0, length)), np.float32),
        reward_uncertainty=None,
        terminated=bool(episode.is_terminated) and whole,
        truncated=bool(episode.is_truncated) or not whole,
        infos=list(episode.get_infos(slice(0, length + 1))),
    )


def _build_runner(policy: Policy, game: str, env: EnvConfig) -> SingleAgentEnvRunner:
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    from genie_ray.envs.retro import register_rllib_env
    from policies.baselines.random import RandomModule
    from policies.exploration import load_module

    config = (
        PPOConfig()  # stands for any algorithm: only what it says of rollout workers is used
        .environment(register_rllib_env(), env_config={"game": game, "env": env})
        .env_runners(num_env_runners=0)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=RandomModule))
    )
    runner = SingleAgentEnvRunner(config=config)
    checkpoint = policy.checkpoint(game)
    if checkpoint is not None:
        runner.module = load_module(checkpoint, epsilon=policy.epsilon, temperature=policy.temperature)
    return runner


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
