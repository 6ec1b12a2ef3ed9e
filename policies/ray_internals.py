"""What we use of Ray that Ray does not promise to keep: all of it is here, each part with its reason.

What can be a function is one here. What has to be an override or an attribute in a subclass of Ray's stays there, and
is listed with the rest in `USED`, which the tests check against the Ray that is installed: `setup.py` admits one minor
version of it. Importing this imports no Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
    from ray.rllib.env.env_runner_group import EnvRunnerGroup

HERE = "policies/ray_internals.py"


@dataclass(frozen=True, kw_only=True)
class Internal:
    """A name of Ray's that may go without notice."""

    owner: str  # module, class or function
    name: str  # of what is in the module, of a class's method or attribute, of a function's argument
    why: str
    user: str = HERE  # the file of ours that has it


RUNNER_GROUP = "ray.rllib.env.env_runner_group.EnvRunnerGroup"
ACTOR_MANAGER = "ray.rllib.utils.actor_manager.FaultTolerantActorManager"  # what `_worker_manager` is
RUNNER = "ray.rllib.env.single_agent_env_runner.SingleAgentEnvRunner"
REPLAY = "ray.rllib.utils.replay_buffers.episode_replay_buffer.EpisodeReplayBuffer"
CONFIG = "ray.rllib.algorithms.algorithm_config.AlgorithmConfig"
LEARNER = "ray.rllib.core.learner.torch.torch_learner.TorchLearner"

USED = (
    Internal(
        owner="ray._private.ray_constants",
        name="ENABLE_RAY_CLUSTER",
        why="with it a local Ray takes 127.0.0.1 for 'this machine' and listens on its outward address",
    ),
    Internal(owner="ray.init", name="_node_ip_address", why="a local Ray listens on loopback only"),
    Internal(owner="ray.init", name="_system_config", why="a local Ray's workers are not to run at nice 15"),
    Internal(
        owner="ray.serve._private.constants",
        name="SERVE_CONTROLLER_NAME",
        why="serve.status() says the same of a Serve on which nothing runs as of none",
    ),
    Internal(owner="ray.serve._private.constants", name="SERVE_NAMESPACE", why="where that controller is found"),
    Internal(
        owner="ray.serve.deployment.Deployment.options",
        name="_internal",
        why="a version may be given: without one Serve takes each run for new code and replaces replicas",
    ),
    Internal(owner=RUNNER_GROUP, name="_worker_manager", why="it alone has the handles of the remote runners"),
    Internal(owner=ACTOR_MANAGER, name="actors", why="the handle of a runner that hangs, to end it"),
    Internal(owner=ACTOR_MANAGER, name="set_actor_state", why="RLlib is told that an evaluation's runner was ended"),
    Internal(owner=ACTOR_MANAGER, name="clear", why="runners that wait for rewards are ended without waiting for them"),
    Internal(
        owner=CONFIG,
        name="_dont_auto_sync_env_runner_states",
        why="weights travel with the requests to play; RLlib would wait for every runner to hand them out itself",
    ),
    Internal(
        owner=CONFIG,
        name="_model_config_auto_includes",
        why="the module's network and the length of a row follow from the settings",
        user="policies/autoexplore/algorithm.py",
    ),
    Internal(
        owner=RUNNER,
        name="_try_env_reset",
        why="RLlib's own tries without end, one call deeper each time",
        user="policies/play/runner.py",
    ),
    Internal(
        owner=RUNNER,
        name="_seed",
        why="a runner that was started again would repeat its first draws",
        user="policies/play/runner.py",
    ),
    Internal(
        owner=RUNNER,
        name="_needs_initial_reset",
        why="each evaluation starts its environments by the same seed",
        user="policies/autoexplore/env_runner.py",
    ),
    Internal(
        owner=REPLAY,
        name="_indices",
        why="steps are drawn as the first ones of sequences, and RLlib's eviction cannot take an episode that grew",
        user="policies/replay.py",
    ),
    Internal(owner=REPLAY, name="_num_timesteps", why="for that eviction", user="policies/replay.py"),
    Internal(owner=REPLAY, name="_num_episodes_evicted", why="for that eviction", user="policies/replay.py"),
    Internal(
        owner=LEARNER,
        name="_device",
        why="on a CPU, the learner keeps freed memory and has its own number of threads",
        user="policies/autoexplore/learner.py",
    ),
    Internal(
        owner=LEARNER,
        name="_weights_seq_no",
        why="the number of updates, which says when an epoch has passed",
        user="policies/autoexplore/learner.py",
    ),
)


def start_local_ray(**arguments: Any) -> None:
    """`ray.init` of a local Ray that listens on loopback only and whose workers are not made to give way.

    Ray runs its workers at nice 15, where any other load starves them; this machine's work is this run.
    """
    import ray
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False  # as it is on macOS anyway
    ray.init(address="local", **arguments, _node_ip_address="127.0.0.1", _system_config={"worker_niceness": 0})


def serve_runs() -> bool:
    """Whether this cluster has a Ray Serve."""
    import ray
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def deployment_version(version: str) -> dict[str, Any]:
    """Options of a Serve deployment whose replicas stay where it is deployed again in the same version."""
    return {"version": version, "_internal": True}


def keep_runner_states(config: AlgorithmConfig) -> None:
    """Has RLlib leave the states of the environment runners alone."""
    config._dont_auto_sync_env_runner_states = True


def end_remote_runner(runners: EnvRunnerGroup, runner: int) -> None:
    """Ends a remote runner that hangs; Ray starts it again."""
    import ray

    ray.kill(runners._worker_manager.actors()[runner], no_restart=False)


def mark_unhealthy(runners: EnvRunnerGroup, runner: int) -> None:
    """Has RLlib take a remote runner for dead until it answers again."""
    runners._worker_manager.set_actor_state(runner, healthy=False)


def end_remote_runners(runners: EnvRunnerGroup) -> None:
    """Ends all remote runners for good, without waiting for what they are doing."""
    runners._worker_manager.clear()
