"""The Ray session: the cluster that was named, the one this job runs in, or a local one on loopback.

A local one, and the threads of every process, are sized by what this process may use of its machine: a container or
`taskset` may allow it less than there is.
"""

from __future__ import annotations

import logging
import math
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from genie_ray.base.errors import one_line
from policies.ray_internals import start_local_ray

LOCAL_LOGICAL_CPUS = 6
"""A reward replica, a rollout worker and a train worker take turns; on a laptop they share its cores."""

PATIENT = {"OMP_WAIT_POLICY": "passive"}
"""PyTorch's threads sleep while they wait for each other. By default they spin, and so keep the threads of other
processes from the cores: beside two trainings on two cores, a training step took 20 to 50 times as long."""

SOCKET_BYTES = 103 if sys.platform == "darwin" else 107  # of a Unix socket's path, at most
SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
"""Where Ray puts its longest one, below RAY_TMPDIR; the process id may have seven digits."""

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Linux's control groups, which limit containers, and the ones that this process is in."""

QUIET_LOGGERS = ("ray.rllib", "ray.serve", "ray.train", "ray.data")
"""Ray's libraries announce each start and migration hint as a warning; their errors are still shown."""


Sharding = Literal["none", "fsdp"]
"""How train workers share a model: each has all of it, or (FSDP2) each holds a part of every weight."""


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """Where Ray runs, and the resources that each process may use."""

    address: str | None = None  # "auto", "ray://host:port" or "host:port"; None: RAY_ADDRESS if set, else a local Ray
    object_store_mb: int = 512  # of a local Ray; a cluster has its own
    train_workers: int = 1  # data-parallel workers of one training run, at most
    train_workers_min: int = 0  # with which it starts, or goes on when nodes are lost; 0: train_workers
    sharding: Sharding = "none"  # "fsdp" for models whose training does not fit into a GPU
    rollout_workers_min: int = 0  # with which an explorer starts, or goes on; 0: exploration.num_env_runners
    cpus_per_worker: int = 1
    threads_per_worker: int = 0  # PyTorch threads; 0: the usable CPUs divided among the machine's workers
    wait_for_nodes_s: float = 0  # how long an autoscaler may take to bring what a command lacks; 0: it is refused
    stages_at_once: bool = False  # a run's stages that don't need each other, two at a time; they share the threads
    learner_apart: bool = False  # an agent's learner in a process of its own, which Ray places; else in the command's
    use_gpu: bool = False  # one GPU per train worker, explorer's learner and evaluation; rewards have reward.gpus
    mlflow: str | None = None  # URI of an MLflow server to which trainings' metrics go, too: "http://host:5000"

    def __post_init__(self) -> None:
        for name in ("object_store_mb", "train_workers", "cpus_per_worker"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not 0 <= self.train_workers_min <= self.train_workers:
            raise ValueError(
                f"train_workers_min = {self.train_workers_min}: must be from 1 to train_workers = "
                f"{self.train_workers}, or 0 for as many"
            )
        if self.sharding == "fsdp" and (self.train_workers == 1 or self.fewest_train_workers < self.train_workers):
            raise ValueError(
                f"sharding = 'fsdp' with train_workers = {self.train_workers} and train_workers_min = "
                f"{self.train_workers_min}: needs at least 2 train workers, none of which may be missing"
            )
        if self.stages_at_once and self.use_gpu and not self.learner_apart:
            raise ValueError(
                "stages_at_once = True with use_gpu = True: needs learner_apart = True, so that Ray finds a GPU for "
                "each learner"
            )
        if self.rollout_workers_min < 0:
            raise ValueError(f"rollout_workers_min = {self.rollout_workers_min}: must be at least 1, or 0 for all")
        if self.wait_for_nodes_s < 0:
            raise ValueError(f"wait_for_nodes_s = {self.wait_for_nodes_s}: must be 0 (no waiting) or more")
        if self.threads_per_worker < 0:
            raise ValueError(f"threads_per_worker = {self.threads_per_worker}: must be 0 (all CPUs) or more")
        if self.mlflow is not None and ("@" in self.mlflow or "?" in self.mlflow):  # settings are shown and kept
            raise ValueError(
                "mlflow has an '@' or '?': it must hold no password; give that in the environment, as "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            )
        if self.mlflow is not None and "://" not in self.mlflow:
            raise ValueError(f"mlflow = {self.mlflow!r}: must be a URI, as in http://host:5000")

    @property
    def fewest_train_workers(self) -> int:
        """The workers that a training cannot do without."""
        return self.train_workers_min or self.train_workers

    def torch_threads(self, workers: int) -> int:
        """PyTorch threads for one of several workers on this machine."""
        return self.threads_per_worker or max(1, usable_cpus() // workers)


def check_local(config: RayConfig) -> None:
    """Requires what a local Ray needs to start, which Ray itself refuses in its own words.

    Raises:
        ValueError: a path is too long, or the object store larger than the memory.
    """
    directory, memory_mb = os.environ.get("RAY_TMPDIR", ""), memory_bytes() // 2**20
    longest = SOCKET_BYTES - len(SOCKET)
    if len(os.fsencode(directory)) > longest:
        raise ValueError(
            f"RAY_TMPDIR has {len(os.fsencode(directory))} bytes: must have at most {longest}, because Ray puts "
            "sockets there, whose paths are limited"
        )
    if config.object_store_mb >= memory_mb:
        raise ValueError(
            f"ray.object_store_mb = {config.object_store_mb}: must be below the memory of this machine or "
            f"container, {memory_mb} MB"
        )


def usable_cpus() -> int:
    """CPUs that this process may use: those that `taskset` and its container's quota leave of the machine's."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    # Version 2 has both numbers in one file; without a quota it says "max", and version 1 says -1.
    quotas = [tuple(limit.split()) for limit in _cgroup_limits("cpu", "cpu.max")]
    quotas += zip(_cgroup_limits("cpu", "cpu.cfs_quota_us"), _cgroup_limits("cpu", "cpu.cfs_period_us"), strict=True)
    limits = [int(quota) / int(period) for quota, period in quotas if quota not in ("max", "-1")]
    return max(1, min([allowed, *map(math.ceil, limits)]))


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or what its container may have of it."""
    limits = [*_cgroup_limits("memory", "memory.max"), *_cgroup_limits("memory", "memory.limit_in_bytes")]
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *(int(limit) for limit in limits if limit != "max")])


def peak_memory_bytes() -> int:
    """The most memory that this process has had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _cgroup_limits(controller: str, file: str) -> list[str]:
    """What a limit's file says in each control group that this process is in, with those above, if it is there.

    A container may see its own group as the topmost, although its path begins further up.
    """
    found = []
    for line in OWN_CGROUPS.read_text().splitlines() if OWN_CGROUPS.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUPS / controller if controllers else CGROUPS  # without controllers: version 2, which has one tree
        group = PurePosixPath(path)
        paths = (root / str(one).lstrip("/") / file for one in (group, *group.parents))
        found += [path.read_text().strip() for path in paths if path.is_file()]
    return found


def quiet_libraries() -> None:
    """Lets Ray's libraries log errors only."""
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def ray_session(config: RayConfig | None = None) -> Iterator[None]:
    """Connects to Ray, or starts a local one that listens on loopback only; stops it afterwards if it was started here.

    Raises:
        ValueError: no cluster answers at the address given, no local Ray can start with these settings, or nothing can
            be logged to the MLflow server that they name.
    """
    import ray

    config = config or RayConfig()
    if config.mlflow is not None:
        from genie_ray.base.tracking.mlflow_run import require_mlflow

        require_mlflow(config.mlflow)
    if ray.is_initialized():  # the caller's Ray (a test's, a notebook's) is left running
        yield
        return
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    quiet_libraries()
    address = config.address or os.environ.get("RAY_ADDRESS")
    if address:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"no Ray cluster at {address!r} (--address or RAY_ADDRESS): {reason}") from error
    else:
        check_local(config)
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # a local machine is not preempted
        for name, value in PATIENT.items():  # for the workers; they inherit it
            os.environ.setdefault(name, value)
        try:
            start_local_ray(
                num_cpus=max(LOCAL_LOGICAL_CPUS, usable_cpus()),
                include_dashboard=False,
                object_store_memory=config.object_store_mb * 1024**2,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except Exception as error:  # Ray's own, of no class: a full disk, a machine so busy that it takes too long, …
            raise ValueError(f"no local Ray starts here: {one_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()
