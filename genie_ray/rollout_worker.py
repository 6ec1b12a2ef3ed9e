"""The rollout worker: a Ray actor that plays shards of a collection in an RLlib EnvRunner with one emulator."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from genie_ray.collection import Policy, Shard
from genie_ray.envs.retro import EnvConfig, fit_frame, register_rllib_env
from genie_ray.replay import writer
from genie_ray.replay.schema import Episode, LargeFrameLayout, LargeFrames, episode_id
from genie_ray.seeding import seed_of
from policies.baselines.random import RandomModule
from policies.exploration import load_module


class RolloutWorker:
    """Plays shards in one EnvRunner, which it rebuilds when the game changes."""

    def __init__(
        self, output: Path, policy: Policy, env: EnvConfig, seed: int, large_frames: LargeFrameLayout | None
    ) -> None:
        torch.set_num_threads(1)
        self._output, self._policy, self._env, self._seed = output, policy, env, seed
        self._large_frames = large_frames
        self._game: str | None = None
        self._runner: SingleAgentEnvRunner | None = None

    def play(self, shard: Shard) -> int:
        """Plays a shard and writes its file; returns its steps."""
        if shard.game != self._game:
            if self._runner is not None:
                self._runner.stop()  # one emulator per process
            every = self._large_frames.every if self._large_frames else 0
            self._runner, self._game = _build_runner(self._policy, shard.game, self._env, every), shard.game
        writer.write_shard(self._output, shard.game, shard.name, self._episodes(shard))
        return shard.steps

    def _episodes(self, shard: Shard) -> Iterator[Episode]:
        """Whole episodes, each under a seed of its own, until the shard's steps are played; the last one is cut."""
        assert self._runner is not None
        played = 0
        while played < shard.steps:
            index = shard.first_step + played
            torch.manual_seed(seed_of(self._seed, self._policy.name, shard.game, index))
            (episode,) = self._runner.sample(num_episodes=1, explore=True)
            length = min(len(episode), shard.steps - played)
            replay = to_replay_episode(episode, shard.game, self._policy.name, self._seed, index, length)
            yield with_large_frames(replay, self._large_frames, self._env.fit) if self._large_frames else replay
            played += length


def to_replay_episode(
    episode: SingleAgentEpisode, game: str, policy: str, seed: int, index: int, length: int
) -> Episode:
    """The first `length` steps of an RLlib episode as the dataset stores it."""
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


def with_large_frames(episode: Episode, layout: LargeFrameLayout, fit: Literal["pad", "stretch"]) -> Episode:
    """The episode with large frames in place of the native frames in its infos."""
    pictures = [fit_frame(info["native_frame"], layout.size, fit) for info in episode.infos[:: layout.every]]
    infos = [{key: value for key, value in info.items() if key != "native_frame"} for info in episode.infos]
    large_frames = LargeFrames(frames=np.stack(pictures), every=layout.every)
    return dataclasses.replace(episode, infos=infos, large_frames=large_frames)


def _build_runner(policy: Policy, game: str, env: EnvConfig, native_frame_every: int) -> SingleAgentEnvRunner:
    config = (
        PPOConfig()  # stands for any algorithm: only what it says of rollout workers is used
        .environment(
            register_rllib_env(), env_config={"game": game, "env": env, "native_frame_every": native_frame_every}
        )
        .env_runners(num_env_runners=0)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=RandomModule))
    )
    runner = SingleAgentEnvRunner(config=config)
    checkpoint = policy.checkpoint(game)
    if checkpoint is not None:
        runner.module = load_module(checkpoint, epsilon=policy.epsilon, temperature=policy.temperature)
    return runner
