"""AutoExplore as an RLlib algorithm (Savov et al. 2025, sections 4 and A.3).

One training iteration is one epoch of the paper (`AutoExploreLearningConfig`): fragments of play enter the replay
buffer, and the learner updates on sequences drawn from it. Rewards come from outside (`policies.rewards`).
"""

from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.connectors.learner import AddOneTsToEpisodesAndTruncate
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    EVALUATION_RESULTS,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    TIMERS,
    WEIGHTS_SEQ_NO,
)

from policies.autoexplore.config import AutoExploreLearningConfig, AutoExploreModuleConfig
from policies.autoexplore.env_runner import CuriosityEnvRunner, JudgedFragment
from policies.autoexplore.evaluation import play_evaluation
from policies.autoexplore.judging import SCALE, ReplayJudge
from policies.autoexplore.learner import AutoExploreLearner
from policies.autoexplore.module import AutoExploreModule
from policies.autoexplore.normalizer import reward_figures
from policies.play.fragments import FragmentSource
from policies.ray_internals import keep_runner_states
from policies.replay import SequenceReplayBuffer
from policies.rewards import LOOKBACK, RewardClientFactory, RewardUnavailableError

EXPLORATION = "exploration"  # key of the reward and action statistics in an iteration's result
MAX_DROPPED_IN_A_ROW = 3  # dropped fragments of one runner that abort the run


class AutoExploreConfig(AlgorithmConfig):
    """RLlib config that builds an AutoExplore run.

    `AutoExploreConfig().environment(name, env_config=…).training(learning=…, network=…, reward_client_factory=…)`
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or AutoExplore)
        self.network = AutoExploreModuleConfig()
        self.reward_client_factory: RewardClientFactory | None = None
        self.reward_timeout_s = 60.0
        self.learner_threads = 0
        self.sample_timeout_s = 300.0  # for one fragment and the rewards of the previous one
        self.env_runner_cls = CuriosityEnvRunner
        self.gym_env_vectorize_mode = "async"
        self.episode_lookback_horizon = LOOKBACK
        self.grad_clip_by = "global_norm"
        # Restart a runner that dies, and all environments of a runner that loses one.
        self.restart_failed_env_runners = True
        self.restart_failed_sub_environments = True
        self.delay_between_env_runner_restarts_s = 1.0
        keep_runner_states(self)  # weights travel with the play requests (`FragmentSource`)
        self._set_learning(AutoExploreLearningConfig())

    def _set_learning(self, learning: AutoExploreLearningConfig) -> None:
        """Stores the config and copies what RLlib reads into RLlib's own fields."""
        self.learning = learning
        self.gamma = learning.gamma
        self.lr = learning.learning_rate
        self.grad_clip = learning.gradient_norm
        self.num_envs_per_env_runner = learning.num_envs
        self.rollout_fragment_length = learning.fragment_length
        self.evaluation_interval = learning.evaluation_every
        self.custom_evaluation_function = evaluate

    def training(
        self,
        *,
        learning: AutoExploreLearningConfig = NotProvided,
        network: AutoExploreModuleConfig = NotProvided,
        reward_client_factory: RewardClientFactory = NotProvided,
        reward_timeout_s: float = NotProvided,
        learner_threads: int = NotProvided,
        **kwargs: Any,
    ) -> "AutoExploreConfig":
        """Sets the run's parameters.

        Args:
            learning: schedule, replay, loss and evaluation.
            network: network and acting.
            reward_client_factory: makes a client for rewards; called once per environment runner, and each time
                `old_rewards="ask"` has stored rewards judged again.
            reward_timeout_s: seconds to wait for a fragment's rewards before it is dropped.
            learner_threads: PyTorch threads of a learner without GPU; 0 keeps PyTorch's default. Fewer threads are
                faster than threads waiting for cores that emulators or the reward model occupy.
        """
        super().training(**kwargs)
        if learning is not NotProvided:
            self._set_learning(learning)
        if network is not NotProvided:
            self.network = network
        if reward_client_factory is not NotProvided:
            self.reward_client_factory = reward_client_factory
        if reward_timeout_s is not NotProvided:
            self.reward_timeout_s = reward_timeout_s
        if learner_threads is not NotProvided:
            self.learner_threads = learner_threads
        return self

    def validate(self) -> None:
        super().validate()
        if self.reward_client_factory is None:
            raise ValueError("reward_client_factory is missing: AutoExplore learns from nothing but its rewards")

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=AutoExploreModule)

    def get_default_learner_class(self) -> type[AutoExploreLearner]:
        return AutoExploreLearner

    def build_learner_connector(self, *args: Any, **kwargs: Any) -> Any:
        pipeline = super().build_learner_connector(*args, **kwargs)
        # The frame after a sequence's last action is needed to bootstrap.
        pipeline.prepend(AddOneTsToEpisodesAndTruncate())
        return pipeline

    @property
    def epoch_steps(self) -> int:
        """Environment steps of an epoch, over all environments."""
        return max(self.num_env_runners, 1) * self.learning.num_envs * self.learning.steps_per_epoch

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        # One batch row is one whole sequence: burn-in, learned steps and the frame to bootstrap from.
        row = self.learning.burn_in + self.learning.sequence_length + 1
        return super()._model_config_auto_includes | {"network": self.network, "max_seq_len": row}


class AutoExplore(Algorithm):
    """Curiosity-only actor-critic with replay.

    A checkpoint holds weights, optimiser, schedules, reward scales and the replay buffer with its random state: a
    restored learner makes the same updates from the same replay, bit for bit. Play is not restored: fragments in flight
    are lost, episodes start over, and the runners draw other random numbers.

    For logs, `arrived` holds the latest epoch's fragments and `evaluated` the latest evaluation's; `evaluation_error`
    says why an evaluation that was due has none.
    """

    config: AutoExploreConfig

    @classmethod
    def get_default_config(cls) -> AutoExploreConfig:
        return AutoExploreConfig()

    def setup(self, config: AutoExploreConfig) -> None:
        super().setup(config)
        learning = config.learning
        self.replay = SequenceReplayBuffer(capacity=learning.replay_capacity, seed=config.seed)
        assert config.reward_client_factory is not None
        self.judge = ReplayJudge(self.replay, config.reward_client_factory, learning, config.reward_timeout_s)
        self.env_steps = 0  # received with rewards, over all environments
        self.updates = 0
        self.arrived: list[JudgedFragment] = []
        self.evaluated: JudgedFragment | None = None
        self.evaluation_error = ""
        self._weights_ages: list[np.ndarray] = []  # in updates, for each step of the latest epoch
        self._source = FragmentSource(self.env_runner_group, self.learner_group, config.sample_timeout_s)

    def training_step(self) -> None:
        """Runs one epoch: receives its steps and makes exactly the share of updates that each step is due."""
        learning, epoch_steps = self.config.learning, self.config.epoch_steps
        self.arrived, self._weights_ages, end = [], [], (self.iteration + 1) * epoch_steps
        while True:
            due = self.env_steps * learning.updates_per_epoch // epoch_steps if self.env_steps >= epoch_steps else 0
            if self.updates < due and self._weights_may_change():
                self._update()
            elif self.arrived and self.updates == due and self.env_steps >= end:
                break
            else:
                self._receive()
        self._log_epoch()

    def _weights_may_change(self) -> bool:
        """Whether all play in flight would still be fresh enough after one more update."""
        oldest = self._source.oldest_weights
        return oldest is None or self.updates + 1 - oldest <= self.config.learning.max_weights_age

    def _receive(self) -> None:
        """Waits for fragments and stores them; their runners start on the next ones.

        Raises:
            RewardUnavailableError: a runner got no rewards several times in a row.
            ValueError: a game does not start, or its play cannot be judged.
        """
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            fragments = self._source.fetch(self.env_steps)
        for fragment in fragments:
            if fragment.error:
                raise ValueError(fragment.error)
            assert isinstance(fragment, JudgedFragment)
            self.metrics.aggregate([fragment.metrics], key=ENV_RUNNER_RESULTS)
            if fragment.dropped_in_a_row >= MAX_DROPPED_IN_A_ROW:
                raise RewardUnavailableError(
                    f"the last {MAX_DROPPED_IN_A_ROW} fragments got no rewards; is the reward service running?"
                )
            if fragment.episodes:
                games = [str(infos[0].get("game", "")) for infos in fragment.infos]
                self.judge.mark(fragment.episodes, fragment.version, games)
                self.replay.add(fragment.episodes)
                self.env_steps += fragment.steps
                self.arrived.append(fragment)
                versions = [episode.get_extra_model_outputs(WEIGHTS_SEQ_NO) for episode in fragment.episodes]
                self._weights_ages.append(self.updates - np.concatenate(versions))

    def _update(self) -> None:
        sequences = self.sample_sequences()
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self.learner_group.update(
                episodes=sequences, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps}
            )
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        self.updates += 1

    def sample_sequences(self) -> list[SingleAgentEpisode]:
        """Draws the sequences of an update, with normalised rewards; the replay buffer keeps the raw ones."""
        learning = self.config.learning
        sequences = self.replay.sample_sequences(
            learning.sequences_per_update, length=learning.sequence_length, burn_in=learning.burn_in
        )
        for sequence in sequences:
            scales = sequence.extra_model_outputs.pop(SCALE)
            rewards = self.judge.scale.normalize(sequence.rewards.data, scales.data)
            sequence.rewards = InfiniteLookbackBuffer(rewards, lookback=sequence.rewards.lookback)
        return sequences

    def _log_epoch(self) -> None:
        """Logs the distributions of the epoch's rewards and actions, and the counters."""
        episodes = [episode for fragment in self.arrived for episode in fragment.episodes]
        figures: dict[str, Any] = {
            "env_steps": self.env_steps,
            "updates": self.updates,
            "replay_steps": self.replay.get_num_timesteps(),
            "judges": self.judge.scale.judges,
            "runner_restarts": self.env_runner_group.num_remote_worker_restarts(),
        }
        rewards = np.concatenate([episode.get_rewards() for episode in episodes])
        actions = np.concatenate([episode.get_actions() for episode in episodes])
        shares = np.bincount(actions, minlength=episodes[0].action_space.n) / len(actions)
        figures |= {f"action_share_{action}": share for action, share in enumerate(shares)}
        figures["reward_undefined_share"] = np.isnan(rewards).mean()
        figures |= reward_figures(rewards)
        ages = np.concatenate(self._weights_ages)
        figures |= {"weights_age_mean": ages.mean(), "weights_age_max": ages.max()}
        for name in {name for fragment in self.arrived for name in fragment.statistics}:
            values = [fragment.statistics[name] for fragment in self.arrived if name in fragment.statistics]
            figures[f"judged_{name}"] = np.mean(values)
        self.metrics.log_dict(figures, key=EXPLORATION, window=1)

    def cleanup(self) -> None:
        self._source.stop()
        super().cleanup()

    def restore_env_runners(self, env_runner_group: EnvRunnerGroup) -> list[int]:
        # `FragmentSource` restores the runners that it plays with.
        return [] if env_runner_group is self.env_runner_group else super().restore_env_runners(env_runner_group)

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return super().get_state(*args, **kwargs) | {
            "replay": self.replay.get_state(),
            "judge": self.judge.get_state(),
            "env_steps": self.env_steps,
            "updates": self.updates,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.replay.set_state(state["replay"])
        self.judge.set_state(state["judge"])
        self.env_steps, self.updates = state["env_steps"], state["updates"]


def evaluate(algorithm: AutoExplore, runners: EnvRunnerGroup) -> tuple[dict[str, Any], int, int]:
    """RLlib's evaluation hook: has a runner play and logs its metrics. Keeps the fragment, or why there is none."""
    config = algorithm.config
    played = play_evaluation(runners, config.learning, fragment_timeout_s=config.sample_timeout_s)
    algorithm.evaluation_error = played.error
    if played.error:
        return {}, 0, 0
    algorithm.evaluated = played
    algorithm.metrics.aggregate([played.metrics], key=(EVALUATION_RESULTS, ENV_RUNNER_RESULTS))
    return {}, played.steps, played.steps
