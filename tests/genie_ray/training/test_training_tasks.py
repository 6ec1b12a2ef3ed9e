"""What the trainings of a decoder and of a GenieRedux do, without Ray: models, losses, refusals."""

import dataclasses
from pathlib import Path

import pytest
import torch

from genie_ray.replay.dataset import ReplayDataset
from genie_ray.training import jobs
from genie_ray.training.config import RecipeConfig, TrainingConfig
from genie_ray.training.job import TrainingJob
from genie_ray.training.loop import build_optimizer
from genie_ray.training.tasks import DecoderTask, DynamicsTask, GenieReduxTask, Task, TokenizerTask
from world_model import checkpoint
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieRedux, GenieReduxG
from world_model.latent_actions import LatentActionConfig
from world_model.layers.quantizer import QuantizerConfig
from world_model.tokenizer import Tokenizer
from world_model.upscaler import Upscaler, UpscalerConfig

SIZES = {"dim": 32, "blocks": 1, "heads": 2, "head_dim": 16}
CONFIG = TrainingConfig(
    iterations=20,
    batch_size=4,
    window=8,
    learning_rate=3e-3,
    final_learning_rate=1e-3,
    warmup_iterations=0,
    shuffle_buffer=16,
    validation_windows=8,
)


@pytest.fixture(scope="module")
def tokenizer(world_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer of the shared world model, as a checkpoint of its own."""
    directory = tmp_path_factory.mktemp("tokenizer") / "checkpoint"
    checkpoint.save(checkpoint.load_as(GenieReduxG, world_model).tokenizer, directory, provenance={})
    return directory


def redux_job(replay: ReplayDataset, tokenizer: Path) -> TrainingJob:
    return TrainingJob(
        kind="genie_redux",
        output=Path("out"),
        dataset=replay.root,
        config=CONFIG,
        model=DynamicsConfig(conditioning="latent", **SIZES),
        latent_actions=LatentActionConfig(patch_size=8, quantizer=QuantizerConfig(kind="ema", codes=7), **SIZES),
        tokenizer=tokenizer,
    )


def losses(task: Task, model: torch.nn.Module, replay: ReplayDataset) -> list[float]:
    """Runs a training's optimiser steps and returns the loss before each."""
    optimizer = build_optimizer(model, CONFIG)
    batches = iter(task.batches(replay, batch_size=CONFIG.batch_size, rank=0, world_size=1))
    model.train()
    values = []
    for step in range(CONFIG.iterations):
        optimizer.zero_grad()
        loss = task.loss(model, next(batches), torch.Generator().manual_seed(step)).loss
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    return values


def test_a_decoder_learns_and_its_tokens_stay(replay: ReplayDataset, tokenizer: Path) -> None:
    job = TrainingJob(kind="decoder", output=Path("out"), dataset=replay.root, config=CONFIG, tokenizer=tokenizer)
    task = DecoderTask(job)
    task.check(replay)
    tuned, before = task.build(replay), checkpoint.load_as(Tokenizer, tokenizer)
    values = losses(task, tuned, replay)
    assert sum(values[-5:]) < 0.9 * sum(values[:5])
    frames_BTHWC = torch.from_numpy(replay.read(replay.episodes[0]).frames[None, :8].copy())
    assert torch.equal(tuned.encode(frames_BTHWC), before.encode(frames_BTHWC))
    assert checkpoint.tokens_hash(tuned) == checkpoint.tokens_hash(before)
    assert checkpoint.weights_hash(tuned) != checkpoint.weights_hash(before)


def test_a_world_models_own_decoder_is_tuned(replay: ReplayDataset, world_model: Path) -> None:
    task = DecoderTask(
        TrainingJob(kind="decoder", output=Path("out"), dataset=replay.root, config=CONFIG, tokenizer=world_model)
    )
    task.check(replay)
    own = checkpoint.load_as(GenieReduxG, world_model).tokenizer
    assert checkpoint.tokens_hash(task.build(replay)) == checkpoint.tokens_hash(own)


def test_a_genie_redux_learns_without_actions_and_goes_on(
    replay: ReplayDataset, tokenizer: Path, tmp_path: Path
) -> None:
    task = GenieReduxTask(redux_job(replay, tokenizer))
    task.check(replay)
    model = task.build(replay)
    assert checkpoint.weights_hash(model.tokenizer) == checkpoint.weights_hash(checkpoint.load_as(Tokenizer, tokenizer))
    values = losses(task, model, replay)
    assert sum(values[-5:]) < 0.9 * sum(values[:5])

    checkpoint.save(model, tmp_path / "model", provenance={})
    job = dataclasses.replace(task.job, model=None, latent_actions=None, tokenizer=None, init=tmp_path / "model")
    finetuning = GenieReduxTask(job)
    finetuning.check(replay)
    assert checkpoint.weights_hash(finetuning.build(replay)) == checkpoint.weights_hash(model)
    assert isinstance(finetuning.build(replay), GenieRedux)


def test_what_does_not_fit_is_refused(
    replay: ReplayDataset, tokenizer: Path, world_model: Path, tmp_path: Path
) -> None:
    job = redux_job(replay, tokenizer)
    assert job.latent_actions is not None

    def refused(message: str, job: TrainingJob) -> None:
        with pytest.raises(ValueError, match=message):
            GenieReduxTask(job).check(replay)

    guided = dataclasses.replace(job, model=DynamicsConfig(conditioning="one_hot", **SIZES))
    refused("conditioning is 'one_hot', allowed here: 'latent'", guided)
    wide = dataclasses.replace(job.latent_actions, dim=64)
    refused(r"latent_actions\.dim is 64, allowed: dynamics\.dim 32", dataclasses.replace(job, latent_actions=wide))
    short = dataclasses.replace(job.latent_actions, max_frames=4)
    refused(
        "latent_actions.max_frames is 4, allowed: dynamics.max_frames 16 or more",
        dataclasses.replace(job, latent_actions=short),
    )
    refused(
        "holds GenieReduxG, needed: GenieRedux",
        dataclasses.replace(job, model=None, tokenizer=None, init=world_model),
    )
    upscaler = tmp_path / "upscaler"
    checkpoint.save(Upscaler(UpscalerConfig(channels=(4,))), upscaler, provenance={})
    with pytest.raises(ValueError, match="holds Upscaler, needed: Tokenizer or GenieReduxG or GenieRedux"):
        DecoderTask(dataclasses.replace(job, kind="decoder", tokenizer=upscaler)).check(replay)


def test_a_tokenizer_is_trained_further_as_a_whole(replay: ReplayDataset, world_model: Path) -> None:
    """From a world model's, in which it is frozen: all of it learns, so that its tokens change."""
    recipe = dataclasses.replace(RecipeConfig(), train_tokenizer=CONFIG)
    task = TokenizerTask(jobs.tokenizer(recipe, Path(str(replay.root)), Path("out"), init=world_model))
    task.check(replay)
    further, before = task.build(replay), checkpoint.load_as(GenieReduxG, world_model).tokenizer
    assert checkpoint.weights_hash(further) == checkpoint.weights_hash(before)
    values = losses(task, further, replay)
    assert sum(values[-5:]) < 0.9 * sum(values[:5])
    assert checkpoint.tokens_hash(further) != checkpoint.tokens_hash(before)


def test_a_tokenizer_that_was_trained_further_takes_the_place_of_the_models_own(
    replay: ReplayDataset, world_model: Path, tmp_path: Path
) -> None:
    own = checkpoint.load_as(GenieReduxG, world_model)
    further = Tokenizer(own.tokenizer.config)
    checkpoint.save(further, tmp_path / "further", provenance={})
    job = jobs.finetuning(
        CONFIG, Path(str(replay.root)), Path("out"), init=world_model, seed=0, tokenizer=tmp_path / "further"
    )
    task = DynamicsTask(job)
    task.check(replay)
    model = task.build(replay)
    assert checkpoint.weights_hash(model.tokenizer) == checkpoint.weights_hash(further)
    assert checkpoint.weights_hash(model.dynamics) == checkpoint.weights_hash(own.dynamics)
    assert not any(parameter.requires_grad for parameter in model.tokenizer.parameters())
    assert {job.identity()[name] for name in ("tokenizer", "init")} == {
        checkpoint.read_description(path)["weights_sha256"] for path in (tmp_path / "further", world_model)
    }
    other = Tokenizer(dataclasses.replace(own.tokenizer.config, mean_frame=False))
    checkpoint.save(other, tmp_path / "other", provenance={})
    with pytest.raises(ValueError, match="other is built otherwise than the tokenizer of"):
        DynamicsTask(dataclasses.replace(job, tokenizer=tmp_path / "other")).check(replay)
