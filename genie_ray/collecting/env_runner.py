"""An RLlib environment runner for collecting: whole episodes of one game, without what learning would need.

RLlib's own runner passes each step through connector pipelines and metrics, which take as long as the emulator. Here a
step runs only the emulator and the policy; an episode is still an RLlib `SingleAgentEpisode`.

Axis letters: D draws of an episode, T its actions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env import INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from genie_ray.envs.config import EnvConfig
from genie_ray.envs.game import make_game
from genie_ray.storage.agents import load_policy
from genie_ray.storage.paths import StoredPath
from policies.baselines.random import RandomModule
from policies.play.acting import Act, learned


class CollectionEnvRunner(EnvRunner):
    """Plays episodes of one game in this process's emulator.

    Args:
        game: a game's id.
        env: frames, actions and episode length.
        checkpoint: the agent that plays; None for random play.
        exploration: `epsilon` and `temperature` of the agent.
        weights: of random play's actions; empty: all alike.
        hold: steps that each action of random play is held.
        native_frame_every: see `make_game`.
    """

    def __init__(
        self,
        game: str,
        env: EnvConfig,
        *,
        checkpoint: StoredPath | None,
        exploration: dict[str, float],
        weights: tuple[float, ...] = (),
        hold: int = 1,
        native_frame_every: int,
    ) -> None:
        super().__init__(config=AlgorithmConfig().framework("torch"))
        self._game, self._settings, self._native_frame_every = game, env, native_frame_every
        self._checkpoint, self._exploration, self._weights, self._hold = checkpoint, exploration, weights, hold
        self.steps_played = 0  # since the runner was made
        self.make_env()
        self.make_module()

    def make_env(self) -> None:
        self.env = make_game(self._game, self._settings, native_frame_every=self._native_frame_every)

    def make_module(self) -> None:
        if self._checkpoint is not None:
            self.module = load_policy(self._checkpoint, **self._exploration).eval()
        else:
            self.module = RandomModule(
                observation_space=self.env.observation_space,
                action_space=self.env.action_space,
                model_config={"weights": list(self._weights)},
            )

    def sample(self, *, seed: int, max_steps: int | None = None, **kwargs: Any) -> list[SingleAgentEpisode]:
        """Plays one episode with exploration, cut short after `max_steps`; determined by the seed."""
        torch.manual_seed(seed)
        return [self._play(seed, max_steps or self._settings.max_episode_steps)]

    def get_spaces(self) -> dict[str, tuple[gym.Space, gym.Space]]:
        spaces = (self.env.observation_space, self.env.action_space)
        return {INPUT_ENV_SPACES: spaces, DEFAULT_MODULE_ID: spaces}

    def assert_healthy(self) -> None:
        assert self.env is not None
        assert self.module is not None

    def stop(self) -> None:
        self.env.close()

    def _play(self, seed: int, max_steps: int) -> SingleAgentEpisode:
        frame, info = self.env.reset(seed=seed)
        frames, infos = [frame], [info]
        actions: list[int] = []
        log_probs: list[float] = []
        rewards: list[float] = []
        act = self._scripted() if isinstance(self.module, RandomModule) else learned(self.module)
        terminated = truncated = False
        while not (terminated or truncated) and len(actions) < max_steps:
            action, log_prob = act(frame, rewards[-1] if rewards else 0.0)
            frame, reward, terminated, truncated, info = self.env.step(action)
            self.steps_played += 1
            frames.append(frame)
            infos.append(info)
            actions.append(action)
            log_probs.append(log_prob)
            rewards.append(reward)
        return SingleAgentEpisode(
            observations=frames,
            infos=infos,
            actions=actions,
            rewards=rewards,
            terminated=terminated,
            truncated=truncated,
            extra_model_outputs={Columns.ACTION_LOGP: log_probs},
            observation_space=self.env.observation_space,
            action_space=self.env.action_space,
            len_lookback_buffer=0,
        ).to_numpy()

    def _scripted(self) -> Act:
        """Random play of one episode, drawn in advance: it ignores the frames. Repeats of a held action are certain."""
        actions_D, log_probs_D = self.module.draw(math.ceil(self._settings.max_episode_steps / self._hold))
        actions_T = actions_D.repeat_interleave(self._hold)
        log_probs_T = torch.zeros(actions_T.shape)
        log_probs_T[:: self._hold] = log_probs_D
        drawn: Iterator[tuple[int, float]] = zip(actions_T.tolist(), log_probs_T.tolist(), strict=True)
        return lambda frame, reward: next(drawn)
