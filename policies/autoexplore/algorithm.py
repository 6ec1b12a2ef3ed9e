"""AutoExplore as an RLlib algorithm (Savov et al. 2025, sections 4 and A.3).

One training iteration is one epoch of the paper (`AutoExploreLearningConfig`): fragments of play enter the replay
buffer, and the learner updates on sequences drawn from it. Rewards come from outside (`policies.rewards`).
"""

from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.connectors.learner import AddOneTsToEpisodesAndTruncate
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.metrics import (
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    TIMERS,
    WEIGHTS_SEQ_NO,
)

from policies.autoexplore.config import AutoExploreLearningConfig, AutoExploreModuleConfig
from policies.autoexplore.judging import SCALE, ReplayJudge
from policies.autoexplore.learner import AutoExploreLearner
from policies.autoexplore.module import AutoExploreModule
from policies.judged.algorithm import JudgedAlgorithm
from policies.judged.config import JudgedConfig
from policies.judged.env_runner import CuriosityEnvRunner
from policies.replay import SequenceReplayBuffer
from policies.rewards import LOOKBACK


class AutoExploreConfig(JudgedConfig):
    """RLlib config that builds an AutoExplore run.

    `AutoExploreConfig().environment(name, env_config=…).training(learning=…, network=…, reward_client_factory=…)`
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or AutoExplore)
        self.network = AutoExploreModuleConfig()
        self.env_runner_cls = CuriosityEnvRunner
        self.episode_lookback_horizon = LOOKBACK
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
        self.evaluation_play = learning

    def training(
        self,
        *,
        learning: AutoExploreLearningConfig = NotProvided,
        network: AutoExploreModuleConfig = NotProvided,
        **kwargs: Any,
    ) -> "AutoExploreConfig":
        """Sets the run's parameters.

        Args:
            learning: schedule, replay, loss and evaluation.
            network: network and acting.
            kwargs: as for `JudgedConfig.training`.
        """
        super().training(**kwargs)
        if learning is not NotProvided:
            self._set_learning(learning)
        if network is not NotProvided:
            self.network = network
        return self

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
        runners = self.planned_env_runners or max(self.num_env_runners, 1)
        return runners * self.learning.num_envs * self.learning.steps_per_epoch

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        # One batch row is one whole sequence: burn-in, learned steps and the frame to bootstrap from.
        row = self.learning.burn_in + self.learning.sequence_length + 1
        return super()._model_config_auto_includes | {"network": self.network, "max_seq_len": row}


class AutoExplore(JudgedAlgorithm):
    """Curiosity-only actor-critic with replay.

    A checkpoint holds weights, optimiser, schedules, reward scales and the replay buffer with its random state: a
    restored learner makes the same updates from the same replay, bit for bit. Play is not restored: fragments in flight
    are lost, episodes start over, and the runners draw other random numbers.
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
        self._weights_ages: list[np.ndarray] = []  # in updates, for each step of the latest epoch

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
        """Waits for fragments and stores them; their runners start on the next ones."""
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            fragments = self._source.fetch(self.env_steps)
        for fragment in self.receive(fragments):
            games = [str(play.infos[0].get("game", "")) for play in fragment.recorded]
            self.judge.mark(fragment.episodes, fragment.version, games)
            self.replay.add(fragment.episodes)
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
        """Draws the sequences of an update, with scaled rewards; the replay buffer keeps the raw ones."""
        learning = self.config.learning
        sequences = self.replay.sample_sequences(
            learning.sequences_per_update,
            length=learning.sequence_length,
            burn_in=learning.burn_in,
            newest_steps=self.config.epoch_steps,
            newest_share=learning.newest_share,
        )
        for sequence in sequences:
            scales = sequence.extra_model_outputs.pop(SCALE)
            if learning.reward_scaling == "none":
                rewards = np.nan_to_num(sequence.rewards.data, nan=0.0)
            else:
                rewards = self.judge.scale.normalize(sequence.rewards.data, scales.data)
            sequence.rewards = InfiniteLookbackBuffer(rewards, lookback=sequence.rewards.lookback)
        return sequences

    def _log_epoch(self) -> None:
        ages = np.concatenate(self._weights_ages)
        self.log_epoch(
            {
                "replay_steps": self.replay.get_num_timesteps(),
                "judges": self.judge.scale.judges,
                "weights_age_mean": ages.mean(),
                "weights_age_max": ages.max(),
            }
        )

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return super().get_state(*args, **kwargs) | {
            "replay": self.replay.get_state(),
            "judge": self.judge.get_state(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.replay.set_state(state["replay"])
        self.judge.set_state(state["judge"])
