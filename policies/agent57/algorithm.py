"""Agent57 as an RLlib algorithm (Badia et al. 2020b, 2003.13350): asynchronous play, one learner, bandits in between.

Runners play fragments and report finished episodes; the bandits that they choose arms by are here, so that neither a
runner's death nor a restart loses what was found out. Play goes on while the learner learns.
"""

import os
from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    TIMERS,
)

from policies.agent57.config import Agent57Settings
from policies.agent57.connectors import PlayInputs
from policies.agent57.env_runner import (
    Agent57EnvRunner,
    Agent57Fragment,
    ChoosesArms,
    FinishedEpisode,
    make_bandit,
)
from policies.agent57.learner import PRIORITIES, Agent57Learner
from policies.agent57.module import Agent57Module
from policies.agent57.replay import PrioritizedSequences, bytes_of_a_step
from policies.play.fragments import FragmentSource
from policies.ray_internals import keep_runner_states

AGENT57 = "agent57"  # key of an iteration's figures


class Agent57Config(AlgorithmConfig):
    """RLlib config of an Agent57 run: `Agent57Config().environment(name, env_config=…).training(settings=…)`."""

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or Agent57)
        self.env_runner_cls = Agent57EnvRunner
        self.learner_threads = 0
        self.evaluation_epsilon = 0.01
        self.sample_timeout_s = 300.0
        self.gym_env_vectorize_mode = "async"
        self.grad_clip_by = "global_norm"
        self.episode_lookback_horizon = 1
        self.restart_failed_env_runners = True
        self.restart_failed_sub_environments = True
        self.delay_between_env_runner_restarts_s = 1.0
        self.env_runners(env_to_module_connector=lambda env, spaces=None, device=None: PlayInputs())
        self.callbacks(ChoosesArms)
        keep_runner_states(self)
        self.custom_evaluation_function = evaluate
        self._set(Agent57Settings())

    def _set(self, settings: Agent57Settings) -> None:
        """Stores the settings and copies what RLlib reads into RLlib's own fields."""
        self.settings = settings
        self.num_env_runners = settings.play.runners
        self.num_envs_per_env_runner = settings.play.num_envs
        self.rollout_fragment_length = settings.play.fragment_length
        self.grad_clip = settings.learning.gradient_norm
        self.lr = settings.learning.learning_rate

    def training(
        self,
        *,
        settings: Agent57Settings = NotProvided,
        learner_threads: int = NotProvided,
        evaluation_epsilon: float = NotProvided,
        **kwargs: Any,
    ) -> "Agent57Config":
        """Sets the run's parameters.

        Args:
            settings: network, novelty, arms, bandit, play and learning.
            learner_threads: PyTorch threads of a learner without GPU; 0 keeps PyTorch's default.
            evaluation_epsilon: share of random actions in evaluations, which play a whole episode of the best arm in
                each environment of theirs, each time RLlib's `evaluation_interval` is over.
        """
        super().training(**kwargs)
        if settings is not NotProvided:
            self._set(settings)
        if learner_threads is not NotProvided:
            self.learner_threads = learner_threads
        if evaluation_epsilon is not NotProvided:
            self.evaluation_epsilon = evaluation_epsilon
        return self

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=Agent57Module)

    def get_default_learner_class(self) -> type[Agent57Learner]:
        return Agent57Learner

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | {"settings": self.settings, "max_seq_len": 1}


class Agent57(Algorithm):
    """A checkpoint holds weights, optimisers, bandits and the replay with its priorities and random state.

    A restored learner makes the same updates from the same replay, bit for bit. Play is not restored: fragments in
    flight are lost, and episodes start over.
    """

    config: Agent57Config

    @classmethod
    def get_default_config(cls) -> Agent57Config:
        return Agent57Config()

    def setup(self, config: Agent57Config) -> None:
        super().setup(config)
        settings = config.settings
        self.env_steps = self.updates = 0
        self.replay = PrioritizedSequences(settings.learning, config.seed)
        numbers = range(settings.play.slots if settings.bandit.per == "actor" else 1)
        self.bandits = {number: make_bandit(settings.family.arms, settings.bandit) for number in numbers}
        self.arrived: list[Agent57Fragment] = []  # of the latest iteration, for logs and recorders
        self.evaluated: Agent57Fragment | None = None
        self.evaluation_error = ""
        self._source = FragmentSource(
            self.env_runner_group,
            self.learner_group,
            config.sample_timeout_s,
            further=lambda: {"bandits": {number: bandit.get_state() for number, bandit in self.bandits.items()}},
        )

    def training_step(self) -> None:
        """Plays an iteration's steps, and makes the updates that are due meanwhile."""
        end = (self.iteration + 1) * self.config.settings.play.steps_per_iteration
        self.arrived = []
        while not self.arrived or self.env_steps < end or self._due() > self.updates:
            if self._due() > self.updates:
                self._update()
            else:
                with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
                    fragments = self._source.fetch(self.env_steps)
                self._receive(fragments)
        self._log()
        arm = self.best_arm()
        self.learner_group.foreach_learner(
            lambda learner: learner.module[DEFAULT_MODULE_ID].unwrapped().best_arm.fill_(arm)
        )

    def _due(self) -> int:
        learning = self.config.settings.learning
        if self.env_steps < learning.learning_starts or not len(self.replay):
            return 0
        return int((self.env_steps - learning.learning_starts) / learning.steps_per_update) + 1

    def _receive(self, fragments: list[Any]) -> None:
        for fragment in fragments:
            if fragment.error:
                raise ValueError(fragment.error)
            assert isinstance(fragment, Agent57Fragment)
            self.metrics.aggregate([fragment.metrics], key=ENV_RUNNER_RESULTS)
            self.env_steps += fragment.steps
            self.replay.add(fragment.plays)
            for episode in fragment.finished:
                number = episode.slot if self.config.settings.bandit.per == "actor" else 0
                self.bandits[number].add(episode.arm, episode.value)
            self.arrived.append(fragment)

    def _update(self) -> None:
        batch = SampleBatch(self.replay.sample())
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self.learner_group.update(
                training_data=TrainingData(batch=MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=len(batch))),
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps},
            )
        for result in results:
            for numbers, priorities in result[DEFAULT_MODULE_ID].pop(PRIORITIES).peek():
                self.replay.update_priorities(np.array(numbers), np.array(priorities))
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        self.updates += 1

    def best_arm(self) -> int:
        """The arm with the highest mean return in the bandits' windows, which plays when the agent is tested."""
        counts = np.sum([bandit.counts() for bandit in self.bandits.values()], axis=0)
        sums = np.sum([np.nan_to_num(bandit.means()) * bandit.counts() for bandit in self.bandits.values()], axis=0)
        return int(np.argmax(np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf)))

    def _log(self) -> None:
        """Figures of the latest iteration; a collapsed arm or a dead reward shows here."""
        settings, plays = self.config.settings, [play for each in self.arrived for play in each.plays]
        finished: list[FinishedEpisode] = [episode for each in self.arrived for episode in each.finished]
        counts = np.sum([bandit.counts() for bandit in self.bandits.values()], axis=0)
        figures: dict[str, Any] = {
            "env_steps": self.env_steps,
            "updates": self.updates,
            "replay_steps": self.replay.steps,
            "best_arm": self.best_arm(),
            "runner_restarts": self.env_runner_group.num_remote_worker_restarts(),
            "episodes": len(finished),
            **{f"bandit_count_{arm}": int(count) for arm, count in enumerate(counts)},
        }
        actions = np.concatenate([play.actions for play in plays])
        shares = np.bincount(actions, minlength=int(actions.max()) + 1) / len(actions)
        figures |= {f"action_share_{action}": share for action, share in enumerate(shares)}
        if finished:
            figures["return"] = np.mean([episode.value for episode in finished])
        for arm in range(settings.family.arms):
            if values := [episode.value for episode in finished if episode.arm == arm]:
                figures[f"return_arm_{arm}"] = np.mean(values)
        if settings.novelty.enabled:
            novelty = np.concatenate([play.rewards for play in plays])
            figures |= {f"novelty_p{q:02}": np.quantile(novelty, q / 100) for q in (5, 50, 95)}
        self.metrics.log_dict(figures, key=AGENT57, window=1)

    def cleanup(self) -> None:
        self._source.stop()
        super().cleanup()

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        # `FragmentSource` restores the runners that it plays with.
        return [] if env_runner_group is self.env_runner_group else super().restore_env_runners(env_runner_group)

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return super().get_state(*args, **kwargs) | {
            "env_steps": self.env_steps,
            "updates": self.updates,
            "replay": self.replay.get_state(),
            "bandits": {number: bandit.get_state() for number, bandit in self.bandits.items()},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.env_steps, self.updates = state["env_steps"], state["updates"]
        self.replay.set_state(state["replay"])
        for number, bandit in state["bandits"].items():
            self.bandits[number].set_state(bandit)


def evaluate(algorithm: Agent57, runners: EnvRunnerGroup) -> tuple[dict[str, Any], int, int]:
    """RLlib's evaluation hook: has a runner play whole episodes of the best arm. Keeps them, or why there are none."""
    config = algorithm.config
    played = runners.foreach_env_runner(
        lambda runner: runner.evaluate(epsilon=config.evaluation_epsilon),
        local_env_runner=not runners.num_remote_env_runners(),
        timeout_seconds=config.sample_timeout_s,
    )
    if not played or played[0].error:
        algorithm.evaluation_error = played[0].error if played else "the runner died or hangs"
        return {}, 0, 0
    algorithm.evaluated = played[0]
    return {}, played[0].steps, played[0].steps


def check_room(settings: Agent57Settings, frame_shape: tuple[int, ...]) -> None:
    """Requires the replay to fit this machine's memory.

    Raises:
        ValueError: it does not.
    """
    streams = 2 if settings.novelty.enabled else 1
    a_step = bytes_of_a_step(frame_shape, 2 * streams * settings.network.lstm_size)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    needed = settings.learning.replay_capacity * a_step / 2**30
    if needed > memory:
        raise ValueError(
            f"replay_capacity is {settings.learning.replay_capacity:,} steps, which take {needed:.1f} GiB; allowed: "
            f"less than this machine's {memory:.1f} GiB, {int(memory * 2**30 / a_step):,} steps"
        )
