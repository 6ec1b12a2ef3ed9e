"""Builds all training jobs: for the loop, the commands, rounds and experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from genie_ray.replay.loading.mixture import WeightedData
from genie_ray.training.config import RecipeConfig, TrainingConfig
from genie_ray.training.job import TrainingJob

Data = Path | tuple[WeightedData, ...]
"""One replay dataset, or several mixed by weight."""

WorldModelKind = Literal["dynamics", "genie_redux"]
"""Conditioned on the player's actions, or on latent ones."""


def tokenizer(recipe: RecipeConfig, data: Data, output: Path) -> TrainingJob:
    """A tokenizer from scratch."""
    return TrainingJob(
        kind="tokenizer",
        output=output,
        dataset=data,
        config=recipe.train_tokenizer,
        seed=recipe.seed,
        model=recipe.tokenizer,
    )


def decoder(recipe: RecipeConfig, data: Data, output: Path, *, tokenizer: Path) -> TrainingJob:
    """A trained tokenizer's decoder, tuned to other games."""
    return TrainingJob(
        kind="decoder",
        output=output,
        dataset=data,
        config=recipe.tune_decoder,
        seed=recipe.seed,
        tokenizer=tokenizer,
    )


def dynamics(
    recipe: RecipeConfig, data: Data, output: Path, *, tokenizer: Path, kind: WorldModelKind = "dynamics"
) -> TrainingJob:
    """Dynamics from scratch on a trained tokenizer's tokens; for a "genie_redux", with latent actions."""
    return TrainingJob(
        kind=kind,
        output=output,
        dataset=data,
        config=recipe.train_dynamics,
        seed=recipe.seed,
        model=recipe.dynamics,
        latent_actions=recipe.latent_actions if kind == "genie_redux" else None,
        tokenizer=tokenizer,
    )


def finetuning(
    config: TrainingConfig,
    data: Data,
    output: Path,
    *,
    init: Path,
    seed: int,
    kind: WorldModelKind = "dynamics",
) -> TrainingJob:
    """Further training of a world model's dynamics."""
    return TrainingJob(kind=kind, output=output, dataset=data, config=config, seed=seed, init=init)


def upscaler(recipe: RecipeConfig, data: Data, output: Path) -> TrainingJob:
    """An upscaler from scratch, on a dataset with large frames."""
    return TrainingJob(
        kind="upscaler",
        output=output,
        dataset=data,
        config=recipe.train_upscaler,
        seed=recipe.seed,
        model=recipe.upscaler,
    )
