"""The loop that every Ray Train worker runs, the same for all parts of the world model.

All random numbers come from a generator seeded by (seed, iteration, piece of the batch), and the loader's position is
saved with the weights and the optimiser's moments: a resumed training repeats and skips nothing, on however many
workers (batches.py).
Axes: B batch, T frames, H W C pixels.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from torch import Tensor, nn

from genie_ray.base import precision
from genie_ray.base.metrics_log import MetricsLog
from genie_ray.base.seeding import seed_of, seeded_generator
from genie_ray.base.session import peak_memory_bytes
from genie_ray.replay.loading.mixture import ReplayMix, open_mix
from genie_ray.storage import checkpoints
from genie_ray.training.batches import Loader, Pieces
from genie_ray.training.best import Best
from genie_ray.training.card import model_card
from genie_ray.training.config import TrainingConfig
from genie_ray.training.job import TrainingJob
from genie_ray.training.parallel import WAYS, Averages, NodeWarning, clip_gradients
from genie_ray.training.ranking import Ranking
from genie_ray.training.tasks import TASKS, Task
from policies.memory import keep_freed_memory
from world_model import checkpoint
from world_model.layers.transformer import transformers

STATE_FILE = "training_state.pt"


def learning_rate(iteration: int, config: TrainingConfig) -> float:
    """Linear warm-up, then half a cosine down to the final rate, where it stays (paper, supplement A), or steps."""
    if iteration < config.warmup_iterations:
        share = iteration / config.warmup_iterations
        return config.learning_rate * (config.warmup_factor + (1 - config.warmup_factor) * share)
    if config.schedule == "step":
        steps = (iteration - config.warmup_iterations) // config.step_iterations
        return config.learning_rate * config.step_factor**steps
    share = min(1.0, (iteration - config.warmup_iterations) / (config.iterations - config.warmup_iterations))
    span = config.learning_rate - config.final_learning_rate
    return config.final_learning_rate + span * 0.5 * (1 + math.cos(math.pi * share))


def build_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over all trainable parameters; weight decay on matrices only."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def train_loop(setup: Mapping[str, Any]) -> None:
    """Runs in every Ray Train worker.

    Args:
        setup: `job`, the TrainingJob; `identity`, what its JOB_FILE holds; `ray`, the RayConfig.
    """
    job: TrainingJob = setup["job"]
    config = job.config
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    torch.set_num_threads(setup["ray"].torch_threads(context.get_local_world_size()))
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        keep_freed_memory()
    autocast = precision.autocast(config.precision, device)

    replay = open_mix(job.dataset)
    identity: dict[str, Any] = setup["identity"]
    source = {"dataset": identity["dataset"], "action_names": replay.metadata.action_names, "job": identity}
    task = TASKS[job.kind](job)
    torch.manual_seed(job.seed)
    module = task.build(replay)
    for stack in transformers(module):
        stack.checkpoint_activations = config.checkpoint_activations
        if config.compile:
            stack.compile_halves()
    sharing = WAYS[setup["ray"].sharding](module, device)
    model, optimizer = sharing.model, build_optimizer(module, config)
    count = setup["ray"].train_workers * config.accumulate
    size, on_gpu = config.batch_size // count, device.type == "cuda"

    def batches(piece: int) -> Loader:
        return task.batches(replay, batch_size=size, rank=piece, world_size=count, pin_memory=on_gpu)

    pieces = Pieces(batches, count=count, rank=rank, world_size=world_size)
    ranking = Ranking(config.ranking, replay, window=config.window, episodes=pieces.episodes, seed=job.seed)
    start, best, trained_seconds = 0, Best(), 0.0
    restored = ray.train.get_checkpoint()
    if restored is not None:
        with restored.as_directory() as directory:
            state = torch.load(Path(directory) / STATE_FILE, map_location=device, weights_only=True)
        start, best, trained_seconds = state["iteration"], Best.from_state(state), state["trained_seconds"]
        sharing.load_state_dict(state, optimizer)
        pieces.load_state_dict(state["loader"])
        ranking.load_state_dict(state["ranking"])
    log = MetricsLog(job.output, from_iteration=start) if rank == 0 else None

    sums, since, steps, warning = Averages(), time.perf_counter(), 0, NodeWarning()
    for iteration in range(start, config.iterations):
        rate = learning_rate(iteration, config)
        for group in optimizer.param_groups:
            group["lr"] = rate
        if ranking.due(iteration):
            paused = time.perf_counter()
            whole = sharing.whole()
            weights = ranking.update(
                whole, iteration, device=device, autocast=autocast, rank=rank, world_size=world_size
            )
            pieces.weigh(weights)
            del whole  # a copy of all weights, if workers share them out
            if log:
                log.write(iteration + 1, {"ranking_error": ranking.mean_error})
            since += time.perf_counter() - paused
        model.train()
        for piece, batch in pieces:
            batch = _to_device(batch, device)
            torch.manual_seed(seed_of(job.seed, iteration, piece))  # for "ema" codebooks: they use this one
            generator = seeded_generator(device, job.seed, iteration, piece)
            with sharing.micro_step(piece, pieces.numbers):
                with autocast:
                    output = task.loss(model, batch, generator)
                (output.loss * world_size / count).backward()  # workers' gradients are averaged
            # A mean over masked places counts by its clips: batches mask different shares, and what few places average
            # to is of the same expectation. Logs only; nothing is chosen by it.
            sums.add(output.metrics, weight=size)
        gradient_norm = clip_gradients(module, config.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps += 1

        done, warned = iteration + 1, False
        ended = done == config.iterations
        if done % config.log_every == 0 or ended:
            metrics = sums.reduce()
            if not math.isfinite(metrics["loss"]):
                raise ValueError(f"the loss is {metrics['loss']} at iteration {done}: try a lower learning_rate")
            seconds = time.perf_counter() - since
            trained_seconds += seconds
            metrics |= {"learning_rate": rate, "gradient_norm": float(gradient_norm), "workers": world_size}
            metrics |= {
                "steps_per_second": steps / seconds,
                "frames_per_second": steps / seconds * config.batch_size * task.frames_per_example,
                "trained_seconds": trained_seconds,
                "data_wait_share": pieces.take_wait() / seconds,  # of rank 0's time
                "peak_memory_gb": peak_memory_gb(device),
            }
            if log:
                log.write(done, metrics)
            sums, since, steps = Averages(), time.perf_counter(), 0
            warned = warning.is_new()
        paused = time.perf_counter()
        if done % config.validate_every == 0 or ended:
            whole = sharing.whole()
            validation = validate(task, whole, replay, size, device, autocast, rank, world_size)
            improved = best.take(task, validation)
            if log:
                logged = {f"validation_{key}": value for key, value in validation.items()}
                log.write(done, {**logged, f"best_{best.name}": best.value})
                if improved:
                    _save(whole, job, "best", done, validation, best, source)
                if ended:
                    _save(whole, job, "last", done, validation, best, source)
            del whole
        if done % config.checkpoint_every == 0 or ended or warned:
            state = {
                "iteration": done,
                **best.state_dict(),
                "trained_seconds": trained_seconds,
                **sharing.state_dict(optimizer),
                "loader": pieces.state_dict(),
                "ranking": ranking.state_dict(),
            }
            _report(state, log)
        since += time.perf_counter() - paused  # validating and saving is not training time
    pieces.close()
    if log:
        log.close()


@torch.no_grad()
def validate(
    task: Task,
    module: checkpoint.Model,
    replay: ReplayMix,
    batch_size: int,
    device: torch.device,
    autocast: contextlib.AbstractContextManager[Any],
    rank: int,
    world_size: int,
) -> dict[str, float]:
    """Mean loss and metrics over held-out batches, weighted by examples and summed over ranks.

    The masks that the dynamics have to fill in are the same at every validation. `module` is not wrapped for
    data-parallel training, where ranks wait for each other in the forward pass: some rank may have no batch.
    """
    for buffer in module.buffers() if world_size > 1 else ():  # running statistics, which differ between ranks
        torch.distributed.broadcast(buffer, src=0)
    module.eval()
    sums = Averages()
    for index, held_out in enumerate(task.validation_batches(replay, batch_size=batch_size)):
        if index % world_size != rank:
            continue
        batch = _to_device(held_out, device)
        generator = seeded_generator(device, task.job.seed, -1, index, 0)
        with autocast:
            output = task.loss(module, batch, generator)
            metrics = output.metrics | task.validation_metrics(module, batch)
        sums.add(metrics, weight=len(next(iter(batch.values()))))
    return sums.reduce()


def peak_memory_gb(device: torch.device) -> float:
    """This process's peak memory use so far: GPU memory if it trains on a GPU, else main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return peak_memory_bytes() / 1e9


def _to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on the device."""
    if device.type == "cpu":
        return dict(batch)
    return {
        key: value.pin_memory().to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for key, value in batch.items()
    }


def _save(
    module: checkpoint.Model,
    job: TrainingJob,
    name: str,
    iteration: int,
    validation: dict[str, float],
    best: Best,
    source: Mapping[str, Any],
) -> None:
    assert best.name is not None
    score = {"name": best.name, "value": validation[best.name], "best": best.value}
    provenance = {"iteration": iteration, "seed": job.seed, **source, "score": score, "validation": validation}
    checkpoints.save(module, job.output / name, provenance=provenance, card=model_card(module, provenance))


def _report(state: Mapping[str, Any], log: MetricsLog | None) -> None:
    """Reports the state that a resumed training needs; every rank must call it, the first one with its log."""
    metrics = {"iteration": state["iteration"]}
    if log is None:
        return ray.train.report(metrics)
    log.flush()
    with tempfile.TemporaryDirectory() as directory:
        torch.save(state, Path(directory) / STATE_FILE)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(directory))
