"""The PPO explorer: RLlib's PPO on a judge's rewards, with held actions.

One training iteration is one epoch: as many fragments as runners are planned, played with the newest weights. Their
rewards arrive, and PPO makes its passes over them. So no play is older than the policy that learns from it, and a judge
that takes over (`genie_ray.exploring.rounds`) judges everything from then on.
"""

import copy
from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from ray.rllib.utils.metrics import (
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    TIMERS,
)

from policies.judged.algorithm import JudgedAlgorithm
from policies.judged.config import JudgedConfig
from policies.judged.env_runner import JudgedFragment
from policies.ppo.config import ExplorerPPOSettings, PPOSettings
from policies.ppo.env_runner import HeldEnvRunner
from policies.ppo.learner import PPOLearner
from policies.ppo.module import PPOModule
from policies.ppo.returns import ReturnScale
from policies.rewards import LOOKBACK


def apply_settings(config: PPOConfig, settings: PPOSettings) -> None:
    """Copies the settings into RLlib's own fields."""
    config.num_env_runners = 0
    config.num_envs_per_env_runner = settings.num_envs
    config.rollout_fragment_length = settings.fragment_length
    config.train_batch_size_per_learner = settings.num_envs * settings.fragment_length
    config.training(
        minibatch_size=settings.minibatch_size,
        num_epochs=settings.passes,
        lr=settings.learning_rate,
        gamma=settings.gamma,
        lambda_=settings.lambda_,
        clip_param=settings.clip,
        use_kl_loss=False,
        vf_loss_coeff=settings.value_weight,
        vf_clip_param=float("inf"),
        entropy_coeff=settings.entropy_weight,
        grad_clip=settings.gradient_norm,
        grad_clip_by="global_norm",
    )
    config.learners(learner_class=PPOLearner)
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=PPOModule, model_config={"settings": settings}))


class ExplorerPPOConfig(JudgedConfig, PPOConfig):
    """RLlib config that builds a PPO explorer; its environments are `HeldEnv(…, record=True)`.

    `ExplorerPPOConfig().environment(name, env_config=…).training(settings=…, reward_client_factory=…)`
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or ExplorerPPO)
        self.env_runner_cls = HeldEnvRunner
        self.episode_lookback_horizon = LOOKBACK
        self._set(ExplorerPPOSettings())

    def _set(self, settings: ExplorerPPOSettings) -> None:
        self.settings = settings
        self.evaluation_interval = settings.evaluation_every
        self.evaluation_play = settings
        apply_settings(self, settings)

    def training(self, *, settings: ExplorerPPOSettings = NotProvided, **kwargs: Any) -> "ExplorerPPOConfig":
        """Sets the run's parameters.

        Args:
            settings: sizes, schedule, loss and evaluation.
            kwargs: as for `JudgedConfig.training`.
        """
        super().training(**kwargs)
        if settings is not NotProvided:
            self._set(settings)
        return self

    def validate(self) -> None:
        # RLlib's own training step would need to know how much all runners play in an iteration.
        runners = self.planned_env_runners or max(self.num_env_runners, 1)
        self.train_batch_size_per_learner = runners * self.settings.num_envs * self.settings.fragment_length
        super().validate()


class ExplorerPPO(JudgedAlgorithm):
    """On-policy explorer.

    A checkpoint holds weights, optimiser and the scale of rewards. Play is not restored: episodes start over.
    """

    config: ExplorerPPOConfig

    @classmethod
    def get_default_config(cls) -> ExplorerPPOConfig:
        return ExplorerPPOConfig()

    def setup(self, config: ExplorerPPOConfig) -> None:
        super().setup(config)
        settings = config.settings
        self.scale = ReturnScale(gamma=settings.gamma, horizon=settings.reward_horizon, centred=not settings.episodic)
        self.judges: set[str] = set()

    def training_step(self) -> None:
        """Runs one epoch."""
        self.arrived = []
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            while not self.arrived:  # all fragments may be dropped, or all runners dead
                self.receive(self._source.gather(self.env_steps))
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            results = self.learner_group.update(
                episodes=self._scaled(self.arrived),
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps},
                num_epochs=self.config.num_epochs,
                minibatch_size=self.config.minibatch_size,
                shuffle_batch_per_epoch=True,
            )
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        self.updates += 1
        self.judges |= {fragment.version.partition("+")[0] for fragment in self.arrived}
        self.log_epoch(
            {"judges": len(self.judges), "reward_mean_of_epoch": self.scale.mean, "return_std": self.scale.std}
        )

    def _scaled(self, fragments: list[JudgedFragment]) -> list[SingleAgentEpisode]:
        """The pieces of episodes with scaled rewards."""
        episodes = [copy.copy(episode) for fragment in fragments for episode in fragment.episodes]
        scaled = self.scale.scale(
            [episode.id_ for episode in episodes],
            [episode.get_rewards() for episode in episodes],
            [episode.is_done for episode in episodes],
            [play.infos[0].get("game", "") for fragment in fragments for play in fragment.recorded],
        )
        for episode, rewards in zip(episodes, scaled, strict=True):
            lookback = episode.rewards.lookback
            episode.rewards = InfiniteLookbackBuffer(np.pad(rewards, (lookback, 0)), lookback=lookback)
        return episodes

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return super().get_state(*args, **kwargs) | {"scale": self.scale.get_state(), "judges": sorted(self.judges)}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.scale.set_state(state["scale"])
        self.judges = set(state["judges"])
