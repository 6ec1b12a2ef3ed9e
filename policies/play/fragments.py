"""Collects fragments from many runners while the learner learns.

A runner is asked for its next fragment as soon as one has arrived. The request carries the newest weights; the fragment
comes back with the following request, once its rewards are there. So emulators, reward service and learner work in
parallel, runners never play further ahead than that, and `oldest_weights` tells how old the play in flight is.

A runner that dies loses its play in flight, is restarted by Ray and asked again. One that does not answer within
RLlib's `sample_timeout_s` is killed. There may be fewer runners than planned: then those that are there play more, and
others join where CPUs become free. And some may be given back, where something that play needs finds no CPU.
"""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from policies.play.runner import PlayedFragment
from policies.ray_internals import end_remote_runner, end_remote_runners, give_back_runner, remote_runners

TAG = "play"
POLL_S = 0.02
PROBE_EVERY_S, PROBE_TIMEOUT_S = 1.0, 0.1  # attempts to restore dead runners
GROW_EVERY_S = 5.0  # looks for room for further runners
STOP_TIMEOUT_S = 5.0
MAX_DEATHS_IN_A_ROW = 5  # per runner, without play in between


class FragmentSource:
    """Source of an algorithm's play: its remote runners, or its local one if there are none.

    Args:
        planned: runners that there may be, one CPU each; None: those that there are.
        fewest: runners that are never given back; None: all that are planned.
        spare_cpus: free CPUs that further runners leave to others.
        further: gives what else travels with a request, as arguments of the runner's `play_fragment`.
    """

    def __init__(
        self,
        runners: EnvRunnerGroup,
        learners: LearnerGroup,
        timeout_s: float,
        *,
        planned: int | None = None,
        fewest: int | None = None,
        spare_cpus: float = 0.0,
        further: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._runners, self._learners, self._timeout_s, self._further = runners, learners, timeout_s, further
        self._weights: tuple[int, Any] | None = None  # their version and object reference
        # Weight versions of each runner: of the fragment waiting for rewards, then of the one being played.
        self._played_by: dict[int, list[int]] = {}
        self._asked_at: dict[int, float] = {}  # when each runner got its current request
        self._idle = set(runners.healthy_env_runner_ids())
        self._deaths_in_a_row = 0
        self._planned, self._spare_cpus = planned or runners.num_remote_env_runners(), spare_cpus
        self._fewest = fewest or self._planned
        self._probe_at = self._grow_at = 0.0
        self.may_grow = True  # whether further runners may join

    @property
    def oldest_weights(self) -> int | None:
        """The weight version of the oldest play in flight; None if there is none."""
        return min((versions[0] for versions in self._played_by.values() if versions), default=None)

    def fetch(self, env_steps: int) -> list[PlayedFragment]:
        """Waits for at least one fragment; the runners that return one play on with the newest weights.

        Args:
            env_steps: steps of all environments so far.

        Raises:
            RuntimeError: the runners keep dying.
        """
        if not self._runners.num_remote_env_runners():
            return [self._play_here(env_steps)]
        self._ask_the_idle(env_steps)
        while True:
            fragments = self._arrivals()
            self._ask_the_idle(env_steps)
            if fragments:
                return fragments

    def gather(self, env_steps: int) -> list[PlayedFragment]:
        """As many fragments as runners are planned, all by the newest weights, of those runners that there are.

        Args:
            env_steps: steps of all environments so far.

        Raises:
            RuntimeError: the runners keep dying.
        """
        if not self._runners.num_remote_env_runners():
            return [self._play_here(env_steps)]
        fragments: list[PlayedFragment] = []
        while len(fragments) < self._planned:
            self._ask_the_idle(env_steps, at_most=self._planned - len(fragments) - len(self._asked_at))
            fragments += self._arrivals()
        return fragments

    def make_room(self) -> None:
        """Gives back a runner, and those that wait for a CPU, but leaves the fewest; none joins until `may_grow`."""
        self.may_grow = False
        there = self._runners.healthy_env_runner_ids()
        waiting = [runner for runner in remote_runners(self._runners) if runner not in there]
        for runner in [*waiting, *there[-1:]][: max(0, len(there) + len(waiting) - self._fewest)]:
            give_back_runner(self._runners, runner)
            self._idle.discard(runner)
            self._asked_at.pop(runner, None)
            self._played_by.pop(runner, None)

    def _arrivals(self) -> list[PlayedFragment]:
        """Waits briefly for fragments; brings dead runners back. Runners that are done become idle."""
        ready = self._runners.fetch_ready_async_reqs(tags=TAG, timeout_seconds=POLL_S)
        for runner, fragment in ready:
            self._idle.add(runner)
            del self._asked_at[runner]
            if fragment.recorded:  # a first fragment has none and proves nothing: its runner may always die next
                self._deaths_in_a_row = 0
        self._end_the_stuck()
        self._bring_back_the_dead()
        self._grow()
        if not ready and not self._asked_at:  # all runners are dead: the call above did not wait
            time.sleep(POLL_S)
        return [fragment for _, fragment in ready]

    def _play_here(self, env_steps: int) -> PlayedFragment:
        weights = self._newest_weights()
        self._note_request(0, weights[WEIGHTS_SEQ_NO])
        return self._runners.local_env_runner.play_fragment(**self._request(weights, env_steps))

    def _ask_the_idle(self, env_steps: int, at_most: int | None = None) -> None:
        """Requests a fragment from each idle runner, or from some of them."""
        idle = sorted(self._idle)[:at_most]
        if not idle:
            return
        weights = self._newest_weights()
        version = weights[WEIGHTS_SEQ_NO]
        if self._weights is None or self._weights[0] != version:
            self._weights = version, ray.put(weights)
        requests = [self._request(self._weights[1], env_steps) for _ in idle]
        self._runners.foreach_env_runner_async("play_fragment", TAG, kwargs=requests, remote_worker_ids=idle)
        for runner in idle:
            self._note_request(runner, version)
            self._asked_at[runner] = time.monotonic()
        self._idle.difference_update(idle)

    def _request(self, weights: Any, env_steps: int) -> dict[str, Any]:
        """Arguments of a runner's `play_fragment`."""
        return {"weights": weights, "env_steps": env_steps, **self._further()}

    def _note_request(self, runner: int, version: int) -> None:
        self._played_by[runner] = [*self._played_by.get(runner, [])[-1:], version]

    def _newest_weights(self) -> dict[str, Any]:
        state = self._learners.get_state(
            components=[f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"], inference_only=True
        )[COMPONENT_LEARNER]
        return {key: state[key] for key in (COMPONENT_RL_MODULE, WEIGHTS_SEQ_NO)}

    def stop(self) -> None:
        """Ends the runners. RLlib would wait for one that waits for rewards in vain."""
        self._runners.foreach_env_runner("stop", local_env_runner=False, timeout_seconds=STOP_TIMEOUT_S)
        end_remote_runners(self._runners)

    def _end_the_stuck(self) -> None:
        for runner, asked_at in self._asked_at.items():
            if time.monotonic() - asked_at > self._timeout_s:
                self._asked_at[runner] = time.monotonic()
                end_remote_runner(self._runners, runner)

    def _bring_back_the_dead(self) -> None:
        dead = set(self._played_by) - set(self._runners.healthy_env_runner_ids())
        for runner in dead:
            self._asked_at.pop(runner, None)
            if self._played_by.pop(runner):
                self._deaths_in_a_row += 1
        if self._deaths_in_a_row > MAX_DEATHS_IN_A_ROW * self._runners.num_remote_env_runners():
            raise RuntimeError(f"the environment runners died {self._deaths_in_a_row} times in a row: see their errors")
        runners = self._runners.num_remote_env_runners()
        if self._runners.num_healthy_remote_env_runners() < runners and time.monotonic() > self._probe_at:
            self._probe_at = time.monotonic() + PROBE_EVERY_S
            self._idle.update(self._runners.probe_unhealthy_env_runners(timeout_seconds=PROBE_TIMEOUT_S))

    def _grow(self) -> None:
        """Adds runners that were planned and now have room."""
        lacking = self._planned - self._runners.num_remote_env_runners()
        if not lacking or not self.may_grow or time.monotonic() < self._grow_at:
            return
        self._grow_at = time.monotonic() + GROW_EVERY_S
        room = int(ray.available_resources().get("CPU", 0) - self._spare_cpus)
        if room > 0:
            there = set(self._runners.healthy_env_runner_ids())
            self._runners.add_workers(min(lacking, room), validate=False)
            self._idle |= set(self._runners.healthy_env_runner_ids()) - there
