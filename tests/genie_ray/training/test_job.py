"""What distinguishes one training from another: `job.json`, and what it refuses."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from genie_ray.replay.loading.mixture import WeightedData, open_mix
from genie_ray.training import jobs
from genie_ray.training.config import RecipeConfig, TrainingConfig
from genie_ray.training.job import JOB_FILE, TrainingJob, begin, read_identity
from genie_ray.training.tasks import DynamicsTask
from tests.genie_ray.tiny_world import guided_model, tiny_dataset
from world_model import checkpoint
from world_model.dynamics import FREE_AFTER_TRAINING, DynamicsConfig
from world_model.genie import GenieReduxG
from world_model.tokenizer import TokenizerConfig

SIZES = {"dim": 16, "blocks": 1, "heads": 2, "head_dim": 8}
RECIPE = RecipeConfig(
    seed=3, tokenizer=TokenizerConfig(frame_size=16, **SIZES), dynamics=DynamicsConfig(num_actions=3, **SIZES)
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_dataset(tmp_path / "data").root


@pytest.fixture
def job(data: Path, tmp_path: Path) -> TrainingJob:
    return jobs.tokenizer(RECIPE, data, tmp_path / "out")


def change(job: TrainingJob, **training: Any) -> TrainingJob:
    return dataclasses.replace(job, config=dataclasses.replace(job.config, **training))


def test_a_job_says_what_it_is_before_anything_starts(job: TrainingJob) -> None:
    assert not begin(job)
    written = json.loads((job.output / JOB_FILE).read_text())
    assert written["kind"] == "tokenizer"
    assert written["seed"] == 3
    assert written["model"]["dim"] == 16
    assert written["config"]["iterations"] == 150_000
    assert len(written["dataset"]) == 64
    assert not begin(job)  # the same goes on


def test_another_job_in_the_same_directory_is_refused(job: TrainingJob, data: Path, tmp_path: Path) -> None:
    begin(job)
    assert isinstance(job.model, TokenizerConfig)
    other = tiny_dataset(tmp_path / "other", (12, 21)).root
    twice = (WeightedData(path=data), WeightedData(path=other, weight=2))
    for changed, message in (
        (dataclasses.replace(job, model=dataclasses.replace(job.model, dim=32)), r"model\.dim: 16 → 32"),
        (dataclasses.replace(job, seed=4), "seed: 3 → 4"),
        (dataclasses.replace(job, dataset=other), r"dataset: '[0-9a-f]{64}' → '[0-9a-f]{64}'"),
        (dataclasses.replace(job, dataset=twice), "dataset: "),
        (change(job, learning_rate=1e-3), r"config\.learning_rate: 0\.0001 → 0\.001"),
        (change(job, iterations=10_000), r"config\.iterations: 150000 → 10000"),
        (change(job, precision="bf16"), r"config\.precision: 'auto' → 'bf16'"),
    ):
        with pytest.raises(ValueError, match=f"holds a training with other settings .*{message}.*another directory"):
            begin(changed)


def test_tokenizers_and_initial_models_are_told_by_their_weights(data: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        checkpoint.save(guided_model(), tmp_path / name, provenance={})
    job = jobs.finetuning(RECIPE.finetune, data, tmp_path / "out", init=tmp_path / "first", seed=0)
    begin(job)
    with pytest.raises(ValueError, match=r"init: '[0-9a-f]{64}' → '[0-9a-f]{64}'"):
        begin(dataclasses.replace(job, init=tmp_path / "second"))
    (tmp_path / "first").rename(tmp_path / "moved")
    assert not begin(dataclasses.replace(job, init=tmp_path / "moved"))


def test_a_training_is_identified_once(job: TrainingJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train workers are told what JOB_FILE says, and do not hash data and checkpoints again."""
    begin(job)
    identity = job.identity()
    monkeypatch.setattr(TrainingJob, "identity", lambda self: 1 / 0)
    assert read_identity(job.output) == identity


def test_a_fine_tuning_changes_what_shapes_no_weights_and_refuses_the_rest(data: Path, tmp_path: Path) -> None:
    """What is given is applied or refused, never ignored; equal values change nothing."""
    trained = guided_model()
    checkpoint.save(trained, tmp_path / "model", provenance={})

    def job(**changes: Any) -> TrainingJob:
        init, config = tmp_path / "model", RECIPE.finetune
        return jobs.finetuning(config, data, tmp_path / "out", init=init, seed=0, changes=changes)

    own = trained.config.dynamics
    assert job().model is None
    assert job(dim=own.dim, alignment=own.alignment, tdce_weight=own.tdce_weight).model is None
    changed = job(dim=own.dim, tdce_weight=0.5, token_input_scale=2.0)
    assert changed.model == dataclasses.replace(own, tdce_weight=0.5, token_input_scale=2.0)
    assert changed.identity()["model"]["tdce_weight"] == 0.5
    tuned = DynamicsTask(changed).build(open_mix(data))
    assert tuned.dynamics.config == tuned.config.dynamics == changed.model
    assert checkpoint.weights_hash(tuned) == checkpoint.weights_hash(trained)
    checkpoint.save(tuned, tmp_path / "tuned", provenance={})
    assert checkpoint.read_config(GenieReduxG, tmp_path / "tuned").dynamics == changed.model
    for field in dataclasses.fields(DynamicsConfig):
        if field.name not in FREE_AFTER_TRAINING:
            with pytest.raises(
                ValueError, match=rf"dynamics\.{field.name} is 'other': must be .*, as in .*; a fine-tuning"
            ):
                job(**{field.name: "other"})
    tokens = torch.randint(0, 32, (1, 6, 4, 4)), torch.randint(0, 5, (1, 5)), trained.tokenizer.token_vectors()
    assert not torch.equal(tuned.dynamics(*tokens), trained.dynamics(*tokens))  # the token input's scale counts


def test_speed_and_logging_may_change(job: TrainingJob) -> None:
    begin(job)
    assert not begin(change(job, compile=True, checkpoint_activations=True, log_every=7, checkpoint_every=9))


def test_a_training_that_does_not_say_what_it_is_is_refused(job: TrainingJob) -> None:
    (job.output / "resume").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"unidentified training \(it has no job.json\): give another directory"):
        begin(job)


def test_a_recipe_makes_the_jobs_of_its_parts(data: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, finetune=TrainingConfig(iterations=7, warmup_iterations=0))
    dynamics = jobs.dynamics(recipe, data, tmp_path / "dynamics", tokenizer=tmp_path / "tokenizer")
    assert (dynamics.kind, dynamics.model, dynamics.config) == ("dynamics", recipe.dynamics, recipe.train_dynamics)
    assert dynamics.latent_actions is None
    latent = jobs.dynamics(recipe, data, tmp_path / "redux", tokenizer=tmp_path / "tokenizer", kind="genie_redux")
    assert latent.latent_actions == recipe.latent_actions
    decoder = jobs.decoder(recipe, data, tmp_path / "decoder", tokenizer=tmp_path / "tokenizer")
    assert (decoder.kind, decoder.config, decoder.model) == ("decoder", recipe.tune_decoder, None)
    upscaler = jobs.upscaler(recipe, data, tmp_path / "upscaler")
    assert (upscaler.kind, upscaler.config, upscaler.model) == ("upscaler", recipe.train_upscaler, recipe.upscaler)
    assert {job.seed for job in (dynamics, latent, decoder, upscaler)} == {3}
