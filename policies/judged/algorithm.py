"""What algorithms with a judge have in common: receiving judged play, logging it, evaluating, stopping.

Rewards come from outside (`policies.rewards`). How play becomes updates is the subclass's `training_step`.
"""

from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, EVALUATION_RESULTS

from policies.judged.env_runner import JudgedFragment
from policies.judged.evaluation import play_evaluation
from policies.judged.moments import reward_figures
from policies.play.fragments import FragmentSource
from policies.play.runner import PlayedFragment
from policies.rewards import RewardUnavailableError

EXPLORATION = "exploration"  # key of the reward and action statistics in an iteration's result
MAX_DROPPED_IN_A_ROW = 3  # dropped fragments of one runner that abort the run


class JudgedAlgorithm(Algorithm):
    """An RLlib algorithm whose play is judged elsewhere.

    For logs and recorders, `arrived` holds the latest epoch's fragments and `evaluated` the latest evaluation's;
    `evaluation_error` says why an evaluation that was due has none.
    """

    def setup(self, config: Any) -> None:
        super().setup(config)
        self.env_steps = 0  # received with rewards, over all environments
        self.updates = 0
        self.arrived: list[JudgedFragment] = []
        self.evaluated: JudgedFragment | None = None
        self.evaluation_error = ""
        self._source = FragmentSource(
            self.env_runner_group,
            self.learner_group,
            config.sample_timeout_s,
            planned=config.planned_env_runners,
            fewest=config.fewest_env_runners,
            spare_cpus=config.spare_cpus,
        )

    def receive(self, fragments: list[PlayedFragment]) -> list[JudgedFragment]:
        """Counts and keeps fragments for the epoch; returns those with play.

        Raises:
            RewardUnavailableError: a runner got no rewards several times in a row.
            ValueError: a game does not start, or its play cannot be judged.
        """
        played, dropped = [], False
        for fragment in fragments:
            if fragment.error:
                raise ValueError(fragment.error)
            assert isinstance(fragment, JudgedFragment)
            self.metrics.aggregate([fragment.metrics], key=ENV_RUNNER_RESULTS)
            if fragment.dropped_in_a_row >= MAX_DROPPED_IN_A_ROW:
                raise RewardUnavailableError(
                    f"the last {MAX_DROPPED_IN_A_ROW} fragments got no rewards; is the reward service running?"
                )
            dropped |= fragment.dropped_in_a_row > 0
            if fragment.episodes:
                self.env_steps += fragment.steps
                played.append(fragment)
        if played:
            self._source.may_grow = True
        elif dropped:
            self._source.make_room()  # for the reward service, which may have lost its node
        self.arrived += played
        return played

    def log_epoch(self, further: dict[str, Any]) -> None:
        """Logs the distributions of the epoch's rewards and actions, the counters, and the subclass's figures."""
        episodes = [episode for fragment in self.arrived for episode in fragment.episodes]
        rewards = np.concatenate([episode.get_rewards() for episode in episodes])
        actions = np.concatenate([episode.get_actions() for episode in episodes])
        shares = np.bincount(actions, minlength=episodes[0].action_space.n) / len(actions)
        figures: dict[str, Any] = {
            "env_steps": self.env_steps,
            "updates": self.updates,
            "runner_restarts": self.env_runner_group.num_remote_worker_restarts(),
            "rollout_workers": self.env_runner_group.num_healthy_remote_env_runners(),
            "reward_undefined_share": np.isnan(rewards).mean(),
            **{f"action_share_{action}": share for action, share in enumerate(shares)},
            **reward_figures(rewards),
            **further,
        }
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
        return super().get_state(*args, **kwargs) | {"env_steps": self.env_steps, "updates": self.updates}

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self.env_steps, self.updates = state["env_steps"], state["updates"]


def evaluate(algorithm: JudgedAlgorithm, runners: EnvRunnerGroup) -> tuple[dict[str, Any], int, int]:
    """RLlib's evaluation hook: has a runner play and logs its metrics. Keeps the fragment, or why there is none."""
    config = algorithm.config
    played = play_evaluation(runners, config.evaluation_play, fragment_timeout_s=config.sample_timeout_s)
    algorithm.evaluation_error = played.error
    if played.error:
        return {}, 0, 0
    algorithm.evaluated = played
    algorithm.metrics.aggregate([played.metrics], key=(EVALUATION_RESULTS, ENV_RUNNER_RESULTS))
    return {}, played.steps, played.steps
