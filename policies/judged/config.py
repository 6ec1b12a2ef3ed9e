"""RLlib config of an agent that is paid by a judge: who judges, and how patient the agent is."""

from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided

from policies.judged.algorithm import evaluate
from policies.judged.evaluation import EvaluationPlay
from policies.ray_internals import keep_runner_states
from policies.rewards import RewardClientFactory


class JudgedConfig(AlgorithmConfig):
    """What AutoExplore's and the PPO explorer's configs share."""

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class)
        self.evaluation_play: EvaluationPlay  # set by the subclass
        self.reward_client_factory: RewardClientFactory | None = None
        self.reward_timeout_s = 60.0
        self.learner_threads = 0
        self.planned_env_runners: int | None = None
        self.fewest_env_runners: int | None = None
        self.spare_cpus = 0.0
        self.sample_timeout_s = 300.0  # for one fragment and the rewards of the previous one
        self.gym_env_vectorize_mode = "async"
        self.grad_clip_by = "global_norm"
        # Restart a runner that dies, and all environments of a runner that loses one.
        self.restart_failed_env_runners = True
        self.restart_failed_sub_environments = True
        self.delay_between_env_runner_restarts_s = 1.0
        self.custom_evaluation_function = evaluate
        keep_runner_states(self)  # weights travel with the play requests (`FragmentSource`)

    def training(
        self,
        *,
        reward_client_factory: RewardClientFactory = NotProvided,
        reward_timeout_s: float = NotProvided,
        learner_threads: int = NotProvided,
        planned_env_runners: int = NotProvided,
        fewest_env_runners: int = NotProvided,
        spare_cpus: float = NotProvided,
        **kwargs: Any,
    ) -> "JudgedConfig":
        """Sets the run's parameters.

        Args:
            reward_client_factory: makes a client for rewards; called once per environment runner, and each time
                AutoExplore's `old_rewards="ask"` has stored rewards judged again.
            reward_timeout_s: seconds to wait for a fragment's rewards before it is dropped.
            learner_threads: PyTorch threads of a learner without GPU; 0 keeps PyTorch's default. Fewer threads are
                faster than threads waiting for cores that emulators or the reward model occupy.
            planned_env_runners: how many there may be in the end, if `num_env_runners` are only those that there is
                room for at the start. An epoch has their steps, whoever plays them.
            fewest_env_runners: how many are kept when rewards fail to come, because the service may have lost its node
                and find no CPU on others; by default, all.
            spare_cpus: free CPUs that runners which join later leave to others.
        """
        super().training(**kwargs)
        if reward_client_factory is not NotProvided:
            self.reward_client_factory = reward_client_factory
        if reward_timeout_s is not NotProvided:
            self.reward_timeout_s = reward_timeout_s
        if learner_threads is not NotProvided:
            self.learner_threads = learner_threads
        if planned_env_runners is not NotProvided:
            self.planned_env_runners = planned_env_runners
        if fewest_env_runners is not NotProvided:
            self.fewest_env_runners = fewest_env_runners
        if spare_cpus is not NotProvided:
            self.spare_cpus = spare_cpus
        return self

    def validate(self) -> None:
        super().validate()
        if self.reward_client_factory is None:
            raise ValueError("reward_client_factory is missing: an explorer learns from nothing but its rewards")
