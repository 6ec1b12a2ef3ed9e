"""AutoExplore as an RLlib algorithm (Savov et al. 2025, sections 4 and A.3).

One training iteration is one of the paper's epochs: all environments play `steps_per_epoch` steps into the replay
buffer, then the learner makes `updates_per_epoch` updates on sequences from it. Rewards come from outside
(`policies.rewards`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.connectors.learner import AddOneTsToEpisodesAndTruncate
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)
from ray.rllib.utils.replay_buffers.episode_replay_buffer import EpisodeReplayBuffer

from policies.autoexplore.env_runner import CuriosityEnvRunner
from policies.autoexplore.learner import AutoExploreLearner
from policies.autoexplore.module import AutoExploreModule, AutoExploreModuleConfig
from policies.autoexplore.normalizer import RunningMoments
from policies.checks import check_at_least, check_positive, check_unit_interval
from policies.rewards import LOOKBACK, WINDOW_ACTIONS, RewardClientFactory, RewardUnavailableError

EXPLORATION = "exploration"  # where an iteration's result holds the figures about rewards and actions
REPLAY_SAMPLE_TIMER = "replay_sample"
MAX_DROPPED_IN_A_ROW = 3  # fragments that every runner may lose before the run is given up


@dataclass(frozen=True, kw_only=True)
class AutoExploreLearningConfig:
    """Schedule, replay and loss. Defaults: Savov et al. 2025, section A.3, unless a comment says otherwise."""

    # Schedule of an epoch.
    num_envs: int = 8  # environments of one runner, each in a process of its own
    steps_per_epoch: int = 200  # per environment
    updates_per_epoch: int = 200
    fragment_length: int = 25  # steps per reward request; ours: a request should overlap with play
    # Replay.
    sequences_per_update: int = 128
    sequence_length: int = 20
    burn_in: int = 0  # steps before each sequence that only warm up the stored LSTM state (Kapturowski et al. 2019)
    replay_capacity: int = 100_000  # steps; ours: about 1.6 GB at 64×64 with an LSTM of 512
    # Loss.
    gamma: float = 0.995
    lambda_: float = 0.95
    rho_clip: float = 1.0  # Espeholt et al. 2018
    value_weight: float = 0.5  # Espeholt et al. 2018
    entropy_weight: float = 0.001
    learning_rate: float = 1e-4
    gradient_norm: float = 10.0
    reward_horizon: int = 100_000  # ours: rewards that the running mean and spread are taken over

    def __post_init__(self) -> None:
        check_at_least(1, self, "num_envs", "steps_per_epoch", "updates_per_epoch", "sequences_per_update")
        check_at_least(1, self, "sequence_length", "replay_capacity", "reward_horizon")
        check_at_least(0, self, "burn_in", "value_weight", "entropy_weight")
        # So that a fragment's lookback lies within the fragment before it.
        check_at_least(WINDOW_ACTIONS, self, "fragment_length")
        check_unit_interval(self, "gamma", "lambda_")
        check_positive(self, "rho_clip", "learning_rate", "gradient_norm")
        if self.steps_per_epoch % self.fragment_length:
            raise ValueError(
                f"steps_per_epoch is {self.steps_per_epoch}; "
                f"allowed: multiples of fragment_length ({self.fragment_length})"
            )


class AutoExploreConfig(AlgorithmConfig):
    """RLlib's builder of an AutoExplore run.

    `AutoExploreConfig().environment(name, env_config=…).training(learning=…, network=…, reward_client_factory=…)`
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or AutoExplore)
        self.network = AutoExploreModuleConfig()
        self.reward_client_factory: RewardClientFactory | None = None
        self.reward_timeout_s = 60.0
        self.reward_attempts = 3
        self.env_runner_cls = CuriosityEnvRunner
        self.gym_env_vectorize_mode = "async"
        self.episode_lookback_horizon = LOOKBACK
        self.grad_clip_by = "global_norm"
        self._set_learning(AutoExploreLearningConfig())

    def _set_learning(self, learning: AutoExploreLearningConfig) -> None:
        """Keeps the config and writes what RLlib reads itself into its own fields."""
        self.learning = learning
        self.gamma = learning.gamma
        self.lr = learning.learning_rate
        self.grad_clip = learning.gradient_norm
        self.num_envs_per_env_runner = learning.num_envs
        self.rollout_fragment_length = learning.fragment_length

    def training(
        self,
        *,
        learning: AutoExploreLearningConfig = NotProvided,
        network: AutoExploreModuleConfig = NotProvided,
        reward_client_factory: RewardClientFactory = NotProvided,
        reward_timeout_s: float = NotProvided,
        reward_attempts: int = NotProvided,
        **kwargs: Any,
    ) -> "AutoExploreConfig":
        """Sets the run's parameters.

        Args:
            learning: schedule, replay and loss.
            network: network and acting.
            reward_client_factory: makes the client that answers with rewards; called once per environment runner.
            reward_timeout_s: seconds to wait for a fragment's rewards.
            reward_attempts: times to ask before a fragment is dropped.
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
        if reward_attempts is not NotProvided:
            self.reward_attempts = reward_attempts
        return self

    def validate(self) -> None:
        super().validate()
        if self.reward_client_factory is None:
            raise ValueError("reward_client_factory is missing: AutoExplore learns from nothing but its rewards")
        if self.reward_attempts < 1:
            raise ValueError(f"reward_attempts is {self.reward_attempts}; allowed: 1 or more")

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
    def _model_config_auto_includes(self) -> dict[str, Any]:
        # One row of a batch is one whole sequence: burn-in, learned steps and the bootstrapping frame.
        row = self.learning.burn_in + self.learning.sequence_length + 1
        return super()._model_config_auto_includes | {"network": self.network, "max_seq_len": row}


class AutoExplore(Algorithm):
    """Curiosity-only actor-critic with replay. Its checkpoint holds the replay buffer and the reward's moments too."""

    @classmethod
    def get_default_config(cls) -> AutoExploreConfig:
        return AutoExploreConfig()

    def setup(self, config: AutoExploreConfig) -> None:
        super().setup(config)
        self.replay = EpisodeReplayBuffer(capacity=config.learning.replay_capacity)
        self.replay.rng = np.random.default_rng(config.seed)
        self.reward_moments = RunningMoments(config.learning.reward_horizon)

    def training_step(self) -> None:
        learning = self.config.learning
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            episodes = self._play(learning.steps_per_epoch // learning.fragment_length)
        if episodes:
            self.replay.add(episodes)
            self._record(episodes)
        if not self.replay.get_num_timesteps():
            return

        env_steps = self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME))
        for _ in range(learning.updates_per_epoch):
            with self.metrics.log_time((TIMERS, REPLAY_SAMPLE_TIMER)):
                sequences = self._sample_sequences()
            with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
                results = self.learner_group.update(
                    episodes=sequences, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: env_steps}
                )
            self.metrics.aggregate(results, key=LEARNER_RESULTS)
        with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
            self.env_runner_group.sync_weights(from_worker_or_learner_group=self.learner_group, inference_only=True)

    def _play(self, fragments: int) -> list[SingleAgentEpisode]:
        """Plays that many fragments on every runner and returns what came back with rewards.

        Raises:
            RewardUnavailableError: no runner got rewards for its latest fragments.
        """
        if not self.replay.get_num_timesteps():
            fragments += 1  # the first one comes back with the second
        episodes = []
        for _ in range(fragments):
            samples = self.env_runner_group.foreach_env_runner(
                lambda runner: (runner.sample(), runner.get_metrics(), runner.dropped_in_a_row),
                local_env_runner=self.env_runner_group.num_remote_workers() == 0,
            )
            self.metrics.aggregate([metrics for _, metrics, _ in samples], key=ENV_RUNNER_RESULTS)
            episodes += [episode for sample, _, _ in samples for episode in sample]
            if samples and min(dropped for *_, dropped in samples) >= MAX_DROPPED_IN_A_ROW:
                raise RewardUnavailableError(
                    f"the latest {MAX_DROPPED_IN_A_ROW} fragments got no rewards; is the reward service running?"
                )
        return episodes

    def _record(self, episodes: list[SingleAgentEpisode]) -> None:
        """Takes new rewards into the moments; logs how they and the actions are distributed."""
        rewards = np.concatenate([episode.get_rewards() for episode in episodes])
        self.reward_moments.update(rewards)
        actions = np.concatenate([episode.get_actions() for episode in episodes])
        shares = np.bincount(actions, minlength=episodes[0].action_space.n) / len(actions)
        figures = {f"action_share_{action}": share for action, share in enumerate(shares)}
        figures |= {
            "env_steps": len(rewards),
            "replay_steps": self.replay.get_num_timesteps(),
            "reward_undefined_share": np.isnan(rewards).mean(),
        }
        if not np.isnan(rewards).all():
            figures |= {
                "reward_mean": np.nanmean(rewards),
                "reward_std": np.nanstd(rewards),
                "reward_min": np.nanmin(rewards),
                "reward_max": np.nanmax(rewards),
            }
        self.metrics.log_dict(figures, key=EXPLORATION, window=1)

    def _sample_sequences(self) -> list[SingleAgentEpisode]:
        """Draws sequences with normalised rewards; those at an episode's end are shorter."""
        learning = self.config.learning
        length = learning.burn_in + learning.sequence_length
        sequences: list[SingleAgentEpisode] = []
        while len(sequences) < learning.sequences_per_update:
            sequences += self.replay.sample(
                num_items=(learning.sequences_per_update - len(sequences)) * length,
                sample_episodes=True,
                batch_length_T=length,
                n_step=1,
                min_batch_length_T=learning.burn_in,
                lookback=1,  # for the LSTM state before the first step
            )
        del sequences[learning.sequences_per_update :]
        for sequence in sequences:
            # A new array: the sequence's own is a view of the replay buffer, which keeps the rewards as they came.
            sequence.rewards = InfiniteLookbackBuffer(
                self.reward_moments.normalize(sequence.rewards.data), lookback=sequence.rewards.lookback
            )
        return sequences

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return super().get_state(*args, **kwargs) | {
            "replay": self.replay.get_state(),
            "replay_rng": self.replay.rng.bit_generator.state,
            "reward_moments": self.reward_moments.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.replay.episodes.clear()  # RLlib fills an empty buffer only
        self.replay.set_state(state["replay"])
        self.replay.rng.bit_generator.state = state["replay_rng"]
        self.reward_moments.set_state(state["reward_moments"])
