"""Play for Agent57: an arm for each episode, and the intrinsic reward of each step."""

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from policies.agent57.bandit import SlidingWindowBandit
from policies.agent57.config import Agent57Bandit
from policies.agent57.connectors import PlayInputs
from policies.agent57.module import ARM, EPSILON, ESTIMATES, MEMORY
from policies.agent57.values import one_step_errors
from policies.play.recorded import RecordedPlay, record_steps
from policies.play.runner import FragmentEnvRunner, PlayedFragment, PlayError
from policies.schedule import decayed

EVALUATED_STEPS = 100  # of an environment, between two looks at what has ended
SLOT = "slot"  # the environment's number among all of them, in an episode's `custom_data`


@dataclass(frozen=True, kw_only=True)
class FinishedEpisode:
    """What the bandit learns from, and the log tells."""

    slot: int
    arm: int
    value: float  # undiscounted return of the game's own rewards


@dataclass(frozen=True, kw_only=True)
class Agent57Play(RecordedPlay):
    """Recorded play whose `rewards` are the intrinsic ones."""

    arm: int
    memory: np.ndarray  # float16 [n, D]: the network's state before each step
    errors: np.ndarray  # float32 [n], of one step; NaN where what follows is unknown. They give first priorities.


@dataclass(frozen=True, kw_only=True)
class Agent57Fragment(PlayedFragment):
    """Play, and the episodes that ended in it."""

    finished: list[FinishedEpisode] = field(default_factory=list)

    @property
    def plays(self) -> list[Agent57Play]:
        """`recorded`, which holds nothing else."""
        return cast(list[Agent57Play], self.recorded)


class ChoosesArms(RLlibCallback):
    """Gives each new episode its arm."""

    def on_episode_created(self, *, episode: Any, env_runner: Any, env_index: int, **kwargs: Any) -> None:
        env_runner.begin(episode, env_index)


def make_bandit(arms: int, settings: Agent57Bandit) -> SlidingWindowBandit:
    """A bandit without experience."""
    return SlidingWindowBandit(
        arms, window=settings.window, epsilon=settings.epsilon, bonus=settings.bonus, scaled=settings.scaled
    )


class Agent57EnvRunner(FragmentEnvRunner):
    """RLlib's environment runner, whose episodes each have an arm and an ε."""

    def __init__(self, **kwargs: Any) -> None:
        self._bandits: dict[int, SlidingWindowBandit] = {}
        self._fixed: tuple[int, float] | None = None  # an evaluation's arm and ε
        self._arms: dict[int, int] = {}  # of each environment's episode
        self._returns: dict[str, float] = {}  # of unfinished episodes, up to their last piece
        self._steps = 0  # of all environments, as of the last request
        super().__init__(**kwargs)
        self._rng = np.random.default_rng(self.config.seed)

    def play_fragment(
        self, *, weights: dict[str, Any], env_steps: int, bandits: dict[int, dict[str, Any]] | None = None
    ) -> PlayedFragment:
        """As `FragmentEnvRunner.play_fragment`; `bandits` are the states of all bandits, by their number."""
        settings = self.config.settings
        self._steps = env_steps
        for number, state in (bandits or {}).items():
            self._bandits.setdefault(number, make_bandit(settings.family.arms, settings.bandit)).set_state(state)
        for episode in self._ongoing_episodes if self._begun else ():
            episode.custom_data[EPSILON] = self._epsilon(episode.custom_data[SLOT])
        if not self._begun:
            self._rng = np.random.default_rng([self.config.seed or 0, self.worker_index or 0, env_steps])
        return super().play_fragment(weights=weights, env_steps=env_steps)

    def begin(self, episode: SingleAgentEpisode, env_index: int) -> None:
        """Chooses a new episode's arm and ε."""
        settings = self.config.settings
        slot = max(self.worker_index - 1, 0) * self.num_envs + env_index
        if self._fixed is not None:
            arm, epsilon = self._fixed
        else:
            number = slot if settings.bandit.per == "actor" else 0
            bandit = self._bandits.get(number) or make_bandit(settings.family.arms, settings.bandit)
            others = [arm for index, arm in self._arms.items() if index != env_index]
            arm = bandit.choose(self._rng, others if settings.bandit.per == "all" else ())
            epsilon = self._epsilon(slot)
        self._arms[env_index] = arm
        episode.custom_data.update({SLOT: slot, ARM: arm, EPSILON: epsilon})

    def _epsilon(self, slot: int) -> float:
        """That of an environment, now: it falls with the steps of all."""
        play = self.config.settings.play
        return decayed(1.0, float(play.epsilons()[slot]), play.warm_up_steps, self._steps)

    def hand_on(self, episodes: list[SingleAgentEpisode]) -> Agent57Fragment:
        """Returns the play at once: its rewards are known."""
        plays = [self._recorded(episode) for episode in episodes]
        finished = []
        for episode, play in zip(episodes, plays, strict=True):
            value = self._returns.pop(episode.id_, 0.0) + float(play.game_rewards.sum())
            if episode.is_done:
                slot = episode.custom_data[SLOT]
                finished.append(FinishedEpisode(slot=slot, arm=play.arm, value=value))
                self._curiosity.pop(episode.id_, None)
            else:
                self._returns[episode.id_] = value
        running = {episode.id_ for episode in self._ongoing_episodes}  # others were lost with their environments
        for name in set(self._returns) - running:
            del self._returns[name]
        for name in set(self._curiosity) - running:
            del self._curiosity[name]
        return Agent57Fragment(recorded=list(plays), finished=finished, metrics=self.get_metrics())

    def evaluate(self, *, epsilon: float) -> Agent57Fragment:
        """Plays a whole episode of the best arm in each environment. Every evaluation resets with the same seed.

        Of each environment, the first episode alone counts. Of those that end first, too many would be short ones.
        """
        self._fixed, self._needs_initial_reset = (int(self.module.best_arm), epsilon), True
        names: dict[int, str] = {}  # by environment
        plays: dict[int, list[Agent57Play]] = {}
        finished: dict[int, FinishedEpisode] = {}
        try:
            while len(finished) < self.num_envs:
                pieces = self.sample(num_timesteps=EVALUATED_STEPS * self.num_envs)
                fragment = self.hand_on(pieces)
                ended = iter(fragment.finished)
                for piece, play in zip(pieces, fragment.plays, strict=True):
                    slot, end = piece.custom_data[SLOT], next(ended) if piece.is_done else None
                    if names.setdefault(slot, piece.id_) == piece.id_:
                        plays.setdefault(slot, []).append(play)
                        if end is not None:
                            finished[slot] = end
                running = {episode.id_ for episode in self._ongoing_episodes}
                for slot in [slot for slot, name in names.items() if slot not in finished and name not in running]:
                    del names[slot], plays[slot]  # lost with the environments
        except PlayError as error:
            return Agent57Fragment(error=str(error))
        kept: list[RecordedPlay] = [play for slot in sorted(plays) for play in plays[slot]]
        return Agent57Fragment(recorded=kept, finished=[finished[slot] for slot in sorted(finished)])

    @property
    def _curiosity(self) -> dict[str, Any]:
        inputs = next(piece for piece in self._env_to_module.connectors if isinstance(piece, PlayInputs))
        return inputs.curiosity.episodes

    def _recorded(self, episode: SingleAgentEpisode) -> Agent57Play:
        steps = len(episode)
        novelty = self._curiosity.get(episode.id_)
        rewards = np.zeros(steps, np.float32)
        if novelty is not None:
            rewards = np.asarray(novelty.rewards[episode.t_started : episode.t_started + steps], np.float32)
        assert len(rewards) == steps, (len(rewards), steps)
        arm, play = int(episode.custom_data[ARM]), record_steps(episode, rewards)
        estimates = np.asarray(episode.get_extra_model_outputs(ESTIMATES), np.float32).reshape(steps, -1)
        return Agent57Play(
            **vars(play),
            arm=arm,
            memory=np.asarray(episode.get_extra_model_outputs(MEMORY), np.float16).reshape(steps, -1),
            errors=self._errors(play, torch.from_numpy(estimates), arm),
        )

    def _errors(self, play: RecordedPlay, estimates: torch.Tensor, arm: int) -> np.ndarray:
        """δ_extrinsic + β_j · δ_intrinsic of each step, as in the learner, but of one step and the online network."""
        settings, module, total = self.config.settings, self.module, torch.zeros(len(play))
        scale = float(module.intrinsic_mean) if settings.novelty.scaled else 1.0
        streams = [(play.game_rewards, 1.0), (play.rewards / scale if scale else 0 * play.rewards, module.betas_N[arm])]
        for number, (rewards, weight) in enumerate(streams[: estimates.shape[-1] // 2]):
            total += weight * one_step_errors(
                estimates[:, 2 * number],
                estimates[:, 2 * number + 1],
                torch.from_numpy(rewards),
                gamma=float(settings.family.discounts()[arm]),
                terminated=play.terminated,
                epsilon=settings.learning.transform_epsilon,
            )
        return total.numpy()
