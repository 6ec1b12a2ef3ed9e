"""All Ray internals that we use, which Ray may change without notice, each with its reason.

Where possible, a function here wraps them. Overrides and attributes that have to be in a subclass stay there and are
listed with the rest in `USED`, which the tests check against the installed Ray; `setup.py` allows one minor version.
Importing this module does not import Ray.
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
    """A name in Ray that may disappear without notice."""

    owner: str  # module, class or function
    name: str  # of the module's member, the class's method or attribute, or the function's argument
    why: str
    user: str = HERE  # our file that uses it


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
        why="with it, a local Ray takes 127.0.0.1 to mean 'this machine' and listens on its external address",
    ),
    Internal(owner="ray.init", name="_node_ip_address", why="a local Ray listens on loopback only"),
    Internal(owner="ray.init", name="_system_config", why="a local Ray's workers must not run at nice 15"),
    Internal(
        owner="ray.serve._private.constants",
        name="SERVE_CONTROLLER_NAME",
        why="serve.status() is the same for an idle Serve as for none",
    ),
    Internal(owner="ray.serve._private.constants", name="SERVE_NAMESPACE", why="the namespace of that controller"),
    Internal(
        owner="ray.serve.deployment.Deployment.options",
        name="_internal",
        why="it allows a version: without one, Serve takes each run for new code and replaces the replicas",
    ),
    Internal(
        owner="ray.train.v2.api.data_parallel_trainer.DataParallelTrainer",
        name="_create_default_callbacks",
        why="some of them start processes that would do nothing, and a start is most of a short training",
        user="genie_ray/training/train.py",
    ),
    Internal(
        owner="ray.train.v2._internal.callbacks",
        name="DatasetsCallback",
        why="one of these: it hands out Ray Data's datasets, while ours are read by the workers",
    ),
    Internal(
        owner="ray.train.v2._internal.callbacks.placement_group_callback",
        name="PlacementGroupCleanerCallback",
        why="the other: it frees a cluster from what a killed training held, and a local Ray ends with its driver",
    ),
    Internal(owner="ray._private.worker", name="_global_node", why="it tells whether Ray is local"),
    Internal(
        owner="ray._private.runtime_env.packaging",
        name="default_logger",
        why="it tells of each try to upload a job's code",
    ),
    Internal(owner=RUNNER_GROUP, name="_worker_manager", why="only it has the handles of the remote runners"),
    Internal(owner=ACTOR_MANAGER, name="actors", why="the handle of a hung runner, to kill it"),
    Internal(owner=ACTOR_MANAGER, name="set_actor_state", why="RLlib learns that an evaluation runner was killed"),
    Internal(owner=ACTOR_MANAGER, name="actor_ids", why="the remote runners, whether they live or wait for a CPU"),
    Internal(owner=ACTOR_MANAGER, name="remove_actor", why="a runner is given back and not brought back"),
    Internal(owner=ACTOR_MANAGER, name="clear", why="it ends runners that wait for rewards, without waiting for them"),
    Internal(
        owner=CONFIG,
        name="_dont_auto_sync_env_runner_states",
        why="weights travel with the play requests; RLlib would wait for every runner to distribute them",
    ),
    Internal(
        owner=CONFIG,
        name="_model_config_auto_includes",
        why="the module's network and row length follow from the settings",
        user="policies/autoexplore/algorithm.py",
    ),
    Internal(
        owner=RUNNER,
        name="_needs_initial_reset",
        why="each evaluation resets its environments with the same seed",
        user="policies/agent57/env_runner.py",
    ),
    Internal(
        owner=RUNNER,
        name="_env_to_module",
        why="the connector there knows the intrinsic rewards",
        user="policies/agent57/env_runner.py",
    ),
    Internal(
        owner=RUNNER,
        name="_ongoing_episodes",
        why="episodes that were lost with their environments are forgotten",
        user="policies/agent57/env_runner.py",
    ),
    Internal(
        owner=RUNNER,
        name="_try_env_reset",
        why="RLlib's own version retries forever, one call deeper each time",
        user="policies/play/runner.py",
    ),
    Internal(
        owner=RUNNER,
        name="_seed",
        why="a restarted runner would repeat its first draws",
        user="policies/play/runner.py",
    ),
    Internal(
        owner=RUNNER,
        name="_needs_initial_reset",
        why="each evaluation resets its environments with the same seed",
        user="policies/judged/env_runner.py",
    ),
    Internal(
        owner=REPLAY,
        name="_indices",
        why="drawn steps are the first ones of sequences, and RLlib cannot evict an episode that just grew",
        user="policies/replay.py",
    ),
    Internal(owner=REPLAY, name="_num_timesteps", why="for our own eviction", user="policies/replay.py"),
    Internal(owner=REPLAY, name="_num_episodes_evicted", why="for our own eviction", user="policies/replay.py"),
    Internal(
        owner=LEARNER,
        name="_device",
        why="on a CPU, the learner keeps freed memory and has its own number of threads",
        user="policies/cpu.py",
    ),
    Internal(
        owner=LEARNER,
        name="_weights_seq_no",
        why="the number of updates, which shows when an epoch has passed",
        user="policies/autoexplore/learner.py",
    ),
)


def start_local_ray(**arguments: Any) -> None:
    """Starts a local Ray that listens on loopback only and runs its workers at normal priority.

    By default, Ray runs them at nice 15, where any other load starves them; this run is the machine's main job.
    """
    import ray
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False  # as it is on macOS anyway
    ray.init(address="local", **arguments, _node_ip_address="127.0.0.1", _system_config={"worker_niceness": 0})


def needed_callbacks(callbacks: list[Any]) -> list[Any]:
    """Of Ray Train's default callbacks, those whose processes have something to do."""
    from ray._private import worker
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

    idle: tuple[type, ...] = (DatasetsCallback,)
    if worker._global_node is not None and worker._global_node.head:
        idle += (PlacementGroupCleanerCallback,)
    return [callback for callback in callbacks if not isinstance(callback, idle)]


def serve_runs() -> bool:
    """Whether Ray Serve runs on this cluster."""
    import ray
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    try:
        ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
    except ValueError:
        return False
    return True


def deployment_version(version: str) -> dict[str, Any]:
    """Deployment options that let replicas survive when the same version is deployed again."""
    return {"version": version, "_internal": True}


def quiet_uploads() -> None:
    """Stops Ray from telling of each upload of a job's code."""
    import logging

    from ray._private.runtime_env.packaging import default_logger

    for logger in (default_logger, logging.getLogger("ray.dashboard.modules.dashboard_sdk")):
        logger.setLevel(logging.WARNING)


def keep_runner_states(config: AlgorithmConfig) -> None:
    """Stops RLlib from syncing the states of the environment runners."""
    config._dont_auto_sync_env_runner_states = True


def end_remote_runner(runners: EnvRunnerGroup, runner: int) -> None:
    """Kills a hung remote runner; Ray restarts it."""
    import ray

    ray.kill(runners._worker_manager.actors()[runner], no_restart=False)


def remote_runners(runners: EnvRunnerGroup) -> list[int]:
    """All remote runners, those that are dead or wait for a CPU included."""
    return list(runners._worker_manager.actor_ids())


def give_back_runner(runners: EnvRunnerGroup, runner: int) -> None:
    """Ends a remote runner for good; nobody brings it back."""
    import ray

    ray.kill(runners._worker_manager.remove_actor(runner))


def mark_unhealthy(runners: EnvRunnerGroup, runner: int) -> None:
    """Makes RLlib treat a remote runner as dead until it answers again."""
    runners._worker_manager.set_actor_state(runner, healthy=False)


def end_remote_runners(runners: EnvRunnerGroup) -> None:
    """Ends all remote runners for good, without waiting for their work."""
    runners._worker_manager.clear()
