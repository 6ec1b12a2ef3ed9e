"""An environment runner that plays fragment by fragment, each with the weights sent with its request.

Shared by all agents that play this way: failed environments are restarted, a restarted runner does not repeat its
random draws, and errors reach the algorithm. A subclass decides what happens to the steps played
(`FragmentEnvRunner.hand_on`).
"""

import abc
import logging
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AsyncVectorEnv
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from policies.errors import last_line
from policies.play.recorded import RecordedPlay

logger = logging.getLogger(__name__)
MAX_STARTS = 3  # attempts to start the environments


class PlayError(RuntimeError):
    """Play or rewards are impossible, and retrying would not help; the message is one line that says why."""


@dataclass(frozen=True, kw_only=True)
class PlayedFragment:
    """What a runner returns: pieces of episodes, none if nothing is ready yet."""

    episodes: list[SingleAgentEpisode] = field(default_factory=list)
    recorded: list[RecordedPlay] = field(default_factory=list)  # the same play step by step, to be stored and logged
    metrics: dict[str, Any] = field(default_factory=dict)  # RLlib's, of the runner
    error: str = ""  # why no more will come; had the runner raised, RLlib would silently restart it, forever

    @property
    def steps(self) -> int:
        """Environment steps."""
        return sum(map(len, self.recorded))


class FragmentEnvRunner(SingleAgentEnvRunner, abc.ABC):
    """RLlib's environment runner, asked for one fragment at a time."""

    env: Any  # gymnasium's vector of environments

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._begun = False

    @abc.abstractmethod
    def hand_on(self, episodes: list[SingleAgentEpisode]) -> PlayedFragment:
        """Takes the pieces of episodes just played; returns those that are ready, be it these or earlier ones.

        Raises:
            PlayError: none will be ready, now or later.
        """

    def play_fragment(self, *, weights: dict[str, Any], env_steps: int) -> PlayedFragment:
        """Plays a fragment in all environments.

        Args:
            weights: of the policy to play with, as returned by `Learner.get_state`.
            env_steps: steps of all environments so far, for the schedule of ε.
        """
        if not self._begun:
            self._seed_draws(env_steps)
            self._begun = True
        self.set_state({**weights, NUM_ENV_STEPS_SAMPLED_LIFETIME: env_steps})
        try:
            return self.hand_on(self.sample())
        except PlayError as error:
            return PlayedFragment(error=str(error))

    def make_env(self) -> None:
        # Kill the processes of failed environments instead of closing them: gymnasium would wait for answers that it
        # already received before another environment died.
        self._end_processes()
        super().make_env()

    def _try_env_reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, list[dict[str, Any]]]:
        # RLlib's own version retries forever, one call deeper each time.
        failures = 0
        while True:
            try:
                return self.env.reset(seed=seed, options=options)
            except Exception as error:
                failures += 1
                if failures == MAX_STARTS:
                    self._end_processes()
                    given = self.config.env_config
                    what = given.get("game", given.get("games", self.config.env))
                    raise PlayError(f"{what} does not start: {last_line(error)}") from error
                logger.warning("the environments do not start and are created again: %s", last_line(error))
                self.make_env()

    def _end_processes(self) -> None:
        if self.env is not None and isinstance(environments := self.env.unwrapped, AsyncVectorEnv):
            for process in environments.processes:
                process.kill()
            environments.closed = True
            self.env = None

    def _seed_draws(self, env_steps: int) -> None:
        """Seeds also by the steps so far; otherwise a restarted runner would repeat its first draws."""
        if self.config.seed is not None:
            seeds = np.random.SeedSequence([self.config.seed, self.worker_index or 0, env_steps])
            self._seed = int(seeds.generate_state(1)[0])
            torch.manual_seed(self._seed)
