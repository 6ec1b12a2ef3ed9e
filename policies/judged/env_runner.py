"""Play with delayed rewards: fragments are judged elsewhere while the environments keep stepping.

Each `play_fragment()` plays a fragment in all environments, asks for its rewards in one request and returns the
*previous* fragment, whose rewards have arrived meanwhile. The learner sees only these rewards: the game's own rewards
and info variables are kept for metrics and logs, and left out of the returned episodes.
"""

import copy
import logging
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from policies.errors import last_line
from policies.exploration import Explorer
from policies.judged.moments import reward_figures
from policies.play.recorded import record_steps
from policies.play.runner import FragmentEnvRunner, PlayedFragment, PlayError
from policies.rewards import RewardAnswer, RewardClient, RewardFuture, RewardUnavailableError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class JudgedFragment(PlayedFragment):
    """Pieces of episodes with their rewards; none for a runner's first fragment, or if rewards are missing."""

    version: str = ""  # of the judge
    statistics: dict[str, float] = field(default_factory=dict)  # means of the rewards' components
    dropped_in_a_row: int = 0  # consecutive fragments without rewards, up to this one


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Pieces of episodes waiting for their rewards."""

    episodes: list[SingleAgentEpisode]
    future: RewardFuture


class CuriosityEnvRunner(FragmentEnvRunner):
    """RLlib's environment runner with rewards from a RewardClient, one step a decision."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._client: RewardClient = self.config.reward_client_factory()
        self._waiting: Waiting | None = None
        self._gaps: Counter[str] = Counter()  # dropped fragments per unfinished episode
        self._dropped_in_a_row = 0

    def hand_on(self, episodes: list[SingleAgentEpisode]) -> JudgedFragment:
        """Returns the previous fragment, whose rewards have arrived meanwhile."""
        arriving, self._waiting = self._waiting, self._ask(episodes)
        answer = self._receive(arriving) if arriving else None
        common: dict[str, Any] = {"metrics": self.get_metrics(), "dropped_in_a_row": self._dropped_in_a_row}
        if arriving is None or answer is None:
            return JudgedFragment(**common)
        fragment = self._judged(arriving.episodes, answer, **common)
        for episode in arriving.episodes:
            if episode.is_done:
                self._gaps.pop(episode.id_, None)
        return fragment

    def evaluate(self, *, steps: int, temperature: float) -> JudgedFragment:
        """Plays `steps` steps in each environment from a reset, without random actions, and waits for the rewards.

        Every evaluation resets with the same seed. Policies are compared by the metric `reward_mean`, the return per
        step, so that long episodes don't win by length alone. Without rewards, the fragment has an `error`.
        """
        assert isinstance(self.module, Explorer)
        self.module.set_exploration(epsilon=0.0, temperature=temperature)
        self._needs_initial_reset = True  # which RLlib seeds
        try:
            episodes = self.sample(num_timesteps=steps * self.num_envs)
            answer = self._answer(self._ask(episodes, remember=False))
        except (PlayError, RewardUnavailableError) as error:
            return JudgedFragment(error=str(error))
        self.metrics.log_dict(reward_figures(np.concatenate(answer.rewards)), window=1)
        return self._judged(episodes, answer, metrics=self.get_metrics())

    def _ask(self, episodes: list[SingleAgentEpisode], *, remember: bool = True) -> Waiting:
        # `data` includes the lookback steps, so windows reach back past the fragment's start.
        future = self._client.submit(
            [episode.observations.data for episode in episodes],
            [np.asarray(episode.actions.data, np.int64) for episode in episodes],
            episodes=[episode.id_ for episode in episodes],
            remember=remember,
        )
        return Waiting(episodes=episodes, future=future)

    def _receive(self, fragment: Waiting) -> RewardAnswer | None:
        """The fragment's rewards, or None if they are unavailable."""
        start = time.perf_counter()
        answer = None
        try:
            answer = self._answer(fragment)
            self._dropped_in_a_row = 0
        except RewardUnavailableError as error:
            logger.warning("dropped a fragment without rewards: %s", error)
            self.metrics.log_value("fragments_dropped", 1, reduce="lifetime_sum")
            self._gaps.update(episode.id_ for episode in fragment.episodes)
            self._dropped_in_a_row += 1
        self.metrics.log_value("reward_wait_s", time.perf_counter() - start, reduce="sum")
        return answer

    def _answer(self, fragment: Waiting) -> RewardAnswer:
        try:
            return fragment.future.answer(self.config.reward_timeout_s)
        except RewardUnavailableError:
            raise
        except Exception as error:
            raise PlayError(f"no rewards: {last_line(error)}") from error

    def _judged(self, episodes: list[SingleAgentEpisode], answer: RewardAnswer, **common: Any) -> JudgedFragment:
        return JudgedFragment(
            episodes=[self._with_rewards(*pair) for pair in zip(episodes, answer.rewards, strict=True)],
            recorded=[record_steps(*pair) for pair in zip(episodes, answer.rewards, strict=True)],
            version=answer.version,
            statistics=means(answer),
            **common,
        )

    def _with_rewards(self, episode: SingleAgentEpisode, rewards: np.ndarray) -> SingleAgentEpisode:
        """A copy that shares the frames; the original keeps the game's rewards, for the metrics."""
        assert len(rewards) == len(episode.actions.data), (len(rewards), episode)
        judged = copy.copy(episode)
        judged.rewards = InfiniteLookbackBuffer(np.asarray(rewards, np.float32), lookback=episode.actions.lookback)
        judged.infos = InfiniteLookbackBuffer([{}] * len(episode.infos.data), lookback=episode.infos.lookback)
        # Play after a dropped fragment cannot be joined to play before it: it counts as a separate episode.
        if self._gaps[episode.id_]:
            judged.id_ = f"{episode.id_}+{self._gaps[episode.id_]}"
        return judged


def means(answer: RewardAnswer) -> dict[str, float]:
    """The means of an answer's components, of those that are defined anywhere."""
    joined = {name: np.concatenate(values) for name, values in answer.statistics.items()}
    return {name: float(np.nanmean(values)) for name, values in joined.items() if not np.isnan(values).all()}
