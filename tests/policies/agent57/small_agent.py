"""An Agent57 that takes seconds, on environments whose right answers are known."""

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.tune import register_env

from policies.agent57.algorithm import Agent57, Agent57Config
from policies.agent57.config import (
    Agent57Bandit,
    Agent57Family,
    Agent57Learning,
    Agent57Network,
    Agent57Novelty,
    Agent57Play,
    Agent57Settings,
)
from tests.policies.toys import ShowsAction

FILTERS = ((8, 4, 4),)


def settings(*, arms: int = 4, runners: int = 0, **changes: dict[str, Any]) -> Agent57Settings:
    """Settings of a small agent; `changes` of a group, by its name."""

    def group(name: str, kind: Any, **defaults: Any) -> Any:
        return kind(**{**defaults, **changes.get(name, {})})

    return Agent57Settings(
        network=group(
            "network",
            Agent57Network,
            filters=FILTERS,
            hidden=32,
            lstm_size=16,
            head=16,
            shared_torso=True,
            arms_as="heads",
        ),
        novelty=group(
            "novelty",
            Agent57Novelty,
            filters=FILTERS,
            features=8,
            lifelong_features=8,
            hidden=16,
            neighbours=3,
            memory=100,
            scaled=True,
            trained_steps=3,
        ),
        family=group("family", Agent57Family, arms=arms, gammas="ngu", gamma_max=0.99, gamma_min=0.97),
        bandit=group("bandit", Agent57Bandit, per="all", window=40, scaled=True),
        play=group("play", Agent57Play, runners=runners, num_envs=4, fragment_length=10, alpha=7),
        learning=group(
            "learning",
            Agent57Learning,
            sequence_length=8,
            burn_in=2,
            period=4,
            replay_capacity=4000,
            learning_starts=80,
            batch_size=8,
            steps_per_update=20,
            own_share=0.5,
            learning_rate=1e-3,
            target_every=20,
        ),
    )


def config(made: Agent57Settings | None = None, *, iteration: int = 120, **env_config: Any) -> Agent57Config:
    made = made or settings()
    register_env("shows_action", lambda given: given.get("make", ShowsAction)(given))
    return (
        Agent57Config()
        .environment("shows_action", env_config=env_config)
        .env_runners(gym_env_vectorize_mode="sync")
        .training(settings=replace(made, play=replace(made.play, steps_per_iteration=iteration)), learner_threads=1)
        .debugging(seed=0, log_level="ERROR")
    )


def weights(algorithm: Agent57) -> dict[str, np.ndarray]:
    return algorithm.learner_group.get_weights()[DEFAULT_MODULE_ID]


class Corridor(gym.Env[np.ndarray, np.int64]):
    """Ten cells, of which those visited are painted; the far end pays 1 and ends the episode, as do 30 steps.

    Forward is action 0 in even cells and 1 in odd ones; the other action leads back to the start. So no favourite
    action gets far, and random play needs nine right ones in a row.
    """

    LENGTH, LIMIT = 10, 30

    def __init__(self, config: dict[str, Any]) -> None:
        self.observation_space = gym.spaces.Box(0, 255, (16, 16, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.position = self.furthest = self.steps = 0
        return self._frame(), {"furthest": 0}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.position = self.position + 1 if action == self.position % 2 else 0
        self.furthest = max(self.furthest, self.position)
        self.steps += 1
        end = self.position == self.LENGTH - 1
        return self._frame(), float(end), end, self.steps >= self.LIMIT, {"furthest": self.furthest}

    def _frame(self) -> np.ndarray:
        frame = np.zeros((16, 16, 3), np.uint8)
        frame[4:8, 2 : 3 + self.furthest, 0] = 255
        frame[8:12, 2 + self.position, 1] = 255
        return frame
