"""The rollout worker: a Ray actor that plays shards of a collection in an RLlib environment runner with one emulator.

A game's errors are distinguished from others: a `GameError` concerns the game, any other error ends the collection.
`progress` answers even while a shard is played, so that a hanging game is noticed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal

import numpy as np
import ray
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from genie_ray.base.errors import GameError, one_line
from genie_ray.base.frames import fit_frame
from genie_ray.base.seeding import seed_of
from genie_ray.base.session import peak_memory_bytes
from genie_ray.collecting.env_runner import CollectionEnvRunner
from genie_ray.collecting.plan import Collection
from genie_ray.collecting.shards import Shard
from genie_ray.replay import writer
from genie_ray.replay.layout import LargeFrameLayout
from genie_ray.replay.schema import Episode, LargeFrames, episode_id


class RolloutWorker:
    """Plays shards in one environment runner, which it rebuilds when the game changes."""

    def __init__(self, collection: Collection) -> None:
        torch.set_num_threads(1)
        self._collection = collection
        self._game: str | None = None
        self._runner: CollectionEnvRunner | None = None
        self._steps_before = self._episodes_played = 0

    def node(self) -> str:
        """The id of the node that the worker runs on."""
        return ray.get_runtime_context().get_node_id()

    def play(self, shard: Shard) -> tuple[int, int]:
        """Plays a shard and writes its file; returns its steps, and this process's peak memory in MB.

        Raises:
            GameError: the game fails to start or breaks during play.
            OSError: the file could not be written.
        """
        if shard.game != self._game:
            self._change_game(shard.game)
        assert self._runner is not None
        self._steps_before, self._episodes_played = self._runner.steps_played, 0
        writer.write_shard(self._collection.output, shard.game, shard.name, self._episodes(shard))
        peak_mb = peak_memory_bytes() // 2**20
        return self._runner.steps_played - self._steps_before, peak_mb

    @ray.method(concurrency_group="watch")
    def progress(self) -> tuple[int, int]:
        """Steps and whole episodes played of the current shard; answers while it is being played."""
        steps = self._runner.steps_played - self._steps_before if self._runner is not None else 0
        return steps, self._episodes_played

    def _change_game(self, game: str) -> None:
        if self._runner is not None:
            self._runner.stop()  # one emulator per process
            self._runner, self._game = None, None
        policy = self._collection.policy
        try:
            self._runner = CollectionEnvRunner(
                game,
                self._collection.env,
                checkpoint=policy.checkpoint(game),
                exploration={"epsilon": policy.epsilon, "temperature": policy.temperature},
                weights=policy.weights,
                hold=policy.hold,
                native_frame_every=self._collection.config.large_frame_every,
            )
        except Exception as error:
            raise GameError(game, one_line(error)) from None
        self._game = game

    def _episodes(self, shard: Shard) -> Iterator[Episode]:
        """The shard's episodes, each with its own seed; if steps are counted, the last one is cut short."""
        policy, seed, fit = self._collection.policy.name, self._collection.seed, self._collection.env.fit
        large_frames = self._collection.config.large_frames
        whole = shard.unit == "episodes"
        played = 0
        while played < shard.count:
            index = shard.first + played
            max_steps = None if whole else shard.count - played
            episode = self._sample(shard.game, seed_of(seed, policy, shard.game, index), max_steps)
            replay = to_replay_episode(episode, shard.game, policy, seed, index)
            yield with_large_frames(replay, large_frames, fit) if large_frames else replay
            played += 1 if whole else len(episode)
            self._episodes_played += 1

    def _sample(self, game: str, seed: int, max_steps: int | None) -> SingleAgentEpisode:
        assert self._runner is not None
        try:
            (episode,) = self._runner.sample(seed=seed, max_steps=max_steps)
        except Exception as error:
            raise GameError(game, one_line(error)) from None
        return episode


def to_replay_episode(episode: SingleAgentEpisode, game: str, policy: str, seed: int, index: int) -> Episode:
    """An RLlib episode as the dataset stores it. An episode that the game did not end counts as truncated."""
    return Episode(
        episode_id=episode_id(game, policy, seed, index),
        game=game,
        frames=np.asarray(episode.get_observations()),
        actions=np.asarray(episode.get_actions(), np.int8),
        action_logp=np.asarray(episode.get_extra_model_outputs(Columns.ACTION_LOGP), np.float32),
        reward_env=np.asarray(episode.get_rewards(), np.float32),
        reward_uncertainty=None,
        terminated=bool(episode.is_terminated),
        truncated=not episode.is_terminated,
        infos=list(episode.get_infos()),
    )


def with_large_frames(episode: Episode, layout: LargeFrameLayout, fit: Literal["pad", "stretch"]) -> Episode:
    """The episode with large frames in place of the native frames in its infos."""
    pictures = [fit_frame(info["native_frame"], layout.size, fit) for info in episode.infos[:: layout.every]]
    infos = [{key: value for key, value in info.items() if key != "native_frame"} for info in episode.infos]
    large_frames = LargeFrames(frames=np.stack(pictures), every=layout.every)
    return dataclasses.replace(episode, infos=infos, large_frames=large_frames)
