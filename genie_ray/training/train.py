"""Training of the world model's parts with Ray Train: one loop for tokenizer, dynamics and upscaler.

A training writes `best/` (by `Task.score` of a validation) and `last/`, both checkpoints, beside `metrics.jsonl` and
TensorBoard files, and `job.json`, which identifies it. If it was killed, the same call continues from the last saved
state; if it has finished, the call does nothing; another training in the same directory is refused. The directory must
be on storage that every train worker can access: a disk that all see, or an object store. Recipe: paper, supplement A
(see TrainingConfig).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from genie_ray.base.errors import IncompleteError, cause_of, is_loss
from genie_ray.base.metrics_log import read_metrics
from genie_ray.base.progress import console, follow_metrics
from genie_ray.base.resources import Role, require_room
from genie_ray.base.session import RayConfig
from genie_ray.base.tracking.mlflow_run import tracked
from genie_ray.replay.loading.mixture import open_mix, resolved
from genie_ray.storage.paths import StoredPath
from genie_ray.storage.whole import remove
from genie_ray.training import jobs
from genie_ray.training.config import RecipeConfig, check_batch_size
from genie_ray.training.job import JOB_FILE, TrainingJob, begin, read_identity
from genie_ray.training.tasks import TASKS
from policies.ray_internals import needed_callbacks

RESIZE_EVERY_S = 60.0
"""How often Ray Train looks whether a training could have more workers; it then restarts from the last saved state."""
RESTARTS_IN_A_RUN = 2
"""Of the workers, by Ray Train."""
LOST_RUNS = 3
"""How many runs of Ray Train in a row may lose workers before a training gives up, if it doesn't advance meanwhile."""


def train(job: TrainingJob, ray_config: RayConfig) -> StoredPath:
    """Runs a training on Ray Train, unless it is finished. Returns the best checkpoint's directory.

    Raises:
        ValueError: a dataset, checkpoint or size that cannot be trained on; the output holds another training.
        IncompleteError: its workers die again and again.
    """
    job = dataclasses.replace(  # workers have other working directories
        job,
        output=job.output.resolve(),
        dataset=resolved(job.dataset),
        tokenizer=job.tokenizer and job.tokenizer.resolve(),
        init=job.init and job.init.resolve(),
    )
    _check(job, ray_config)
    if not begin(job):
        workers = Role(
            name="train workers",
            count=ray_config.fewest_train_workers,
            cpus=ray_config.cpus_per_worker,
            gpus=int(ray_config.use_gpu),
        )
        require_room(f"training ({job.kind})", [workers], ray_config)
        with (
            tracked(job.output, ray_config.mlflow, settings=JOB_FILE),
            follow_metrics(job.output / "metrics.jsonl", total=job.config.iterations, title=f"train {job.kind}"),
        ):
            _run_trainer(job, ray_config)
    remove(job.output / "resume")
    return job.output / "best"


def train_world_model(
    recipe: RecipeConfig, data: jobs.Data, directory: StoredPath, ray_config: RayConfig
) -> StoredPath:
    """Trains a tokenizer, then dynamics on its tokens, in folders of those names; returns the latter's best checkpoint.

    Raises:
        ValueError: see `train`.
    """
    tokenizer = train(jobs.tokenizer(recipe, data, directory / "tokenizer"), ray_config)
    return train(jobs.dynamics(recipe, data, directory / "dynamics", tokenizer=tokenizer), ray_config)


def _run_trainer(job: TrainingJob, ray_config: RayConfig) -> None:
    """Trains to the end, in runs of Ray Train, each of which goes on from the last saved state.

    Ray Train starts lost workers anew, but ends if too many are lost, however far apart, or at certain moments.
    """
    lost = reached = 0
    while True:
        try:
            _fit(job, ray_config)
            return
        except Exception as error:
            if not is_loss(error):
                raise cause_of(error) from error
            before, reached = reached, max(reached, _reached(job))
            lost = 1 if reached > before else lost + 1
            if lost == LOST_RUNS:
                told = f"{job.output}: train workers or their nodes keep dying; none got beyond iteration {reached}"
                raise IncompleteError(f"{told}; the same command goes on from the last saved state") from error
            console.print(f"train {job.kind}: workers or their nodes died; going on from the last saved state")


def _reached(job: TrainingJob) -> int:
    """The last iteration that was logged."""
    return int(max((line.get("iteration", 0) for line in read_metrics(job.output / "metrics.jsonl")), default=0))


def _fit(job: TrainingJob, ray_config: RayConfig) -> None:
    """One run of Ray Train."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from genie_ray.training.loop import train_loop

    class Trainer(TorchTrainer):
        """Starts two processes fewer (`needed_callbacks`)."""

        def _create_default_callbacks(self) -> list[Any]:
            return needed_callbacks(super()._create_default_callbacks())

    fewest, most = ray_config.fewest_train_workers, ray_config.train_workers
    trainer = Trainer(
        train_loop,
        train_loop_config={"job": job, "identity": read_identity(job.output), "ray": ray_config},
        scaling_config=ScalingConfig(
            num_workers=(fewest, most) if fewest < most else most,
            elastic_resize_monitor_interval_s=RESIZE_EVERY_S,
            use_gpu=ray_config.use_gpu,
            resources_per_worker={"CPU": ray_config.cpus_per_worker},
        ),
        run_config=RunConfig(
            name="resume",
            **_storage(job.output),
            failure_config=FailureConfig(max_failures=RESTARTS_IN_A_RUN),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    trainer.fit()


def _storage(output: StoredPath) -> dict[str, Any]:
    """Where Ray Train keeps its states."""
    if isinstance(output, Path):
        return {"storage_path": str(output)}
    return {"storage_path": output.path, "storage_filesystem": output.filesystem}


def _check(job: TrainingJob, ray_config: RayConfig) -> None:
    """Refuses, before Ray Train starts, what would fail in its workers."""
    config, pieces = job.config, ray_config.train_workers * job.config.accumulate
    check_batch_size(config, ray_config.train_workers)
    task, replay = TASKS[job.kind](job), open_mix(job.dataset)
    if config.ranking.every and job.kind != "dynamics":
        raise ValueError(f"ranking.every = {config.ranking.every}: must be 0 for {job.kind}; only dynamics are ranked")
    for dataset in replay.datasets:
        task.check(dataset)
    task.batches(replay, batch_size=config.batch_size // pieces, rank=0, world_size=pieces)
    next(iter(task.validation_batches(replay, batch_size=1)))
