"""Training of the world model's parts with Ray Train: one loop for tokenizer, dynamics and upscaler.

A training leaves `best/` (lowest validation loss) and `last/`, both checkpoints, beside `metrics.jsonl` and TensorBoard
files. Killed at any point, the same call continues from the last saved state; finished, it does nothing. The output
directory must be on storage that every train worker sees. Recipe: paper, supplement A (see TrainingConfig).
"""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from genie_ray.base.errors import cause_of
from genie_ray.base.precision import Precision
from genie_ray.base.progress import follow_metrics
from genie_ray.base.session import RayConfig
from genie_ray.replay.loading.mixture import WeightedData, open_mix, resolved

if TYPE_CHECKING:
    from genie_ray.replay.writer import DatasetMetadata
    from world_model.dynamics import DynamicsConfig
    from world_model.latent_actions import LatentActionConfig
    from world_model.tokenizer import TokenizerConfig
    from world_model.upscaler import UpscalerConfig


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Optimisation of one part. Defaults: the paper's tokenizer recipe (supplement A)."""

    iterations: int = 150_000
    batch_size: int = 112  # windows per optimiser step, over all workers and micro-steps
    accumulate: int = 1  # micro-steps per optimiser step
    window: int = 16  # frames
    stride: int = 1  # frames between the starts of neighbouring windows
    learning_rate: float = 1e-4
    schedule: Literal["cosine", "step"] = "cosine"
    final_learning_rate: float = 5e-5  # where the cosine ends and stays
    step_iterations: int = 12_500  # of "step": after so many the rate is multiplied by step_factor, again and again
    step_factor: float = 0.5
    warmup_iterations: int = 5_000
    warmup_factor: float = 0.5  # of learning_rate, at iteration 0
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4  # none on vectors and biases
    clip_norm: float = 10.0
    precision: Precision = "auto"
    compile: bool = False  # torch.compile; needs a C++ compiler on a CPU, pays off in long trainings
    checkpoint_activations: bool = False  # compute activations twice rather than keep them: less memory, more time
    shuffle_buffer: int = 2_048  # windows
    log_every: int = 100
    validate_every: int = 5_000
    validation_windows: int = 256  # of an upscaler: pictures
    checkpoint_every: int = 5_000

    def __post_init__(self) -> None:
        for name in ("iterations", "batch_size", "accumulate", "stride", "shuffle_buffer", "validation_windows"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        for name in ("log_every", "validate_every", "checkpoint_every", "step_iterations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1 iteration")
        if self.window < 2:
            raise ValueError(f"window = {self.window}: a window needs at least 2 frames")
        if not 0 < self.final_learning_rate <= self.learning_rate:
            raise ValueError(
                f"final_learning_rate = {self.final_learning_rate}: must be in (0, learning_rate], that is at most "
                f"{self.learning_rate}"
            )
        if not 0 < self.step_factor <= 1:
            raise ValueError(f"step_factor = {self.step_factor}: must be in (0, 1]")
        if not 0 <= self.warmup_iterations < self.iterations:
            raise ValueError(f"warmup_iterations = {self.warmup_iterations}: must be in [0, {self.iterations})")
        if not 0 <= self.warmup_factor <= 1:
            raise ValueError(f"warmup_factor = {self.warmup_factor}: must be in [0, 1]")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas = {self.betas}: each must be in [0, 1)")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay = {self.weight_decay}: must be 0 or more")
        if not self.clip_norm > 0:
            raise ValueError(f"clip_norm = {self.clip_norm}: must be above 0")


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """One training: what is learned, from which data, and where it is left.

    A tokenizer is trained from `model`, a "decoder" is that of a `tokenizer` checkpoint; a dynamics is trained from
    `model` and a `tokenizer` checkpoint, whose tokens it learns; or a whole world model, `init`, is fine-tuned: its
    dynamics go on learning, its tokenizer stays. In a "genie_redux", `latent_actions` learn together with the dynamics.
    An upscaler is trained from `model`, on a dataset with large frames.
    """

    kind: Literal["tokenizer", "decoder", "dynamics", "genie_redux", "upscaler"]
    output: Path
    dataset: Path | tuple[WeightedData, ...]  # one, or several mixed by weight
    config: TrainingConfig
    seed: int = 0
    model: TokenizerConfig | DynamicsConfig | UpscalerConfig | None = None
    latent_actions: LatentActionConfig | None = None
    tokenizer: Path | None = None
    init: Path | None = None


def train(job: TrainingJob, ray_config: RayConfig) -> Path:
    """Runs a training on Ray Train, unless it is finished. Returns the best checkpoint's directory.

    Raises:
        ValueError: a dataset, checkpoint or size that cannot be trained on; the output holds another training.
    """
    from world_model import checkpoint

    output = job.output.resolve()
    best, last = output / "best", output / "last"
    if (last / "config.json").exists():
        provenance = checkpoint.read_description(last)["provenance"]
        if provenance.get("iteration") == job.config.iterations:
            shutil.rmtree(output / "resume", ignore_errors=True)
            return best
        raise ValueError(
            f"{output} holds a finished training of {provenance.get('iteration')} iterations, {job.config.iterations} "
            "were asked for: give another output directory"
        )
    _check(job, ray_config)
    output.mkdir(parents=True, exist_ok=True)
    job = dataclasses.replace(  # a worker has a working directory of its own
        job,
        output=output,
        dataset=resolved(job.dataset),
        tokenizer=job.tokenizer and job.tokenizer.resolve(),
        init=job.init and job.init.resolve(),
    )
    with follow_metrics(output / "metrics.jsonl", total=job.config.iterations, title=f"train {job.kind}"):
        _run_trainer(job, ray_config)
    shutil.rmtree(output / "resume")
    return best


def _run_trainer(job: TrainingJob, ray_config: RayConfig) -> None:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from genie_ray.training.loop import train_loop

    trainer = TorchTrainer(
        train_loop,
        train_loop_config={"job": job, "ray": ray_config},
        scaling_config=ScalingConfig(
            num_workers=ray_config.train_workers,
            use_gpu=ray_config.use_gpu,
            resources_per_worker={"CPU": ray_config.cpus_per_worker},
        ),
        run_config=RunConfig(
            name="resume",
            storage_path=str(job.output),
            failure_config=FailureConfig(max_failures=2),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:
        raise cause_of(error) from error


def _check(job: TrainingJob, ray_config: RayConfig) -> None:
    """Refuses, before Ray Train starts, what its workers would fail on."""
    from genie_ray.training.tasks import TASKS

    config, workers = job.config, ray_config.train_workers
    check_batch_size(config, workers)
    task, replay = TASKS[job.kind](job), open_mix(job.dataset)
    for dataset in replay.datasets:
        task.check(dataset)
    task.batches(replay, batch_size=config.batch_size // workers // config.accumulate, rank=0, world_size=workers)
    next(iter(task.validation_batches(replay, batch_size=1)))


def check_batch_size(config: TrainingConfig, workers: int) -> None:
    """Raises ValueError where a batch cannot be divided among so many workers."""
    if config.batch_size % (workers * config.accumulate):
        raise ValueError(
            f"batch_size = {config.batch_size}: must be a multiple of ray.train_workers × accumulate = "
            f"{workers} × {config.accumulate}"
        )


def require_fit(metadata: DatasetMetadata, *, frame_size: int, num_actions: int | None = None) -> None:
    """Raises ValueError where a model of this frame size, and number of actions, does not fit a dataset."""
    if metadata.frame_shape != (frame_size, frame_size, 3):
        raise ValueError(
            f"the dataset holds frames of {metadata.frame_shape}, the model takes {(frame_size, frame_size, 3)}"
        )
    names = metadata.action_names
    if num_actions not in (None, len(names)):
        raise ValueError(f"the dataset has {len(names)} actions ({', '.join(names)}), the model takes {num_actions}")
