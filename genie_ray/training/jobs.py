"""Builds all training jobs: for the loop, the commands, rounds and experiments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from genie_ray.replay.loading.mixture import WeightedData
from genie_ray.storage.checkpoints import read_config
from genie_ray.storage.paths import StoredPath
from genie_ray.training.config import RecipeConfig, TrainingConfig
from genie_ray.training.job import TrainingJob
from world_model.dynamics import FREE_AFTER_TRAINING, DynamicsConfig
from world_model.genie import GenieRedux, GenieReduxG

Data = StoredPath | tuple[WeightedData, ...]
"""One replay dataset, or several mixed by weight."""

WorldModelKind = Literal["dynamics", "genie_redux"]
"""Conditioned on the player's actions, or on latent ones."""


def tokenizer(recipe: RecipeConfig, data: Data, output: StoredPath, *, init: StoredPath | None = None) -> TrainingJob:
    """A tokenizer from scratch; or `init`, a tokenizer or a world model's, trained further as a whole."""
    return TrainingJob(
        kind="tokenizer",
        output=output,
        dataset=data,
        config=recipe.train_tokenizer,
        seed=recipe.seed,
        model=recipe.tokenizer if init is None else None,
        tokenizer=init,
    )


def decoder(recipe: RecipeConfig, data: Data, output: StoredPath, *, tokenizer: StoredPath) -> TrainingJob:
    """The decoder of a trained tokenizer, or of a world model's, tuned to other games."""
    return TrainingJob(
        kind="decoder",
        output=output,
        dataset=data,
        config=recipe.tune_decoder,
        seed=recipe.seed,
        tokenizer=tokenizer,
    )


def dynamics(
    recipe: RecipeConfig, data: Data, output: StoredPath, *, tokenizer: StoredPath, kind: WorldModelKind = "dynamics"
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
    output: StoredPath,
    *,
    init: StoredPath,
    seed: int,
    tokenizer: StoredPath | None = None,
    kind: WorldModelKind = "dynamics",
    changes: Mapping[str, Any] | None = None,
) -> TrainingJob:
    """Further training of a world model's dynamics.

    Args:
        tokenizer: instead of the model's own; it was trained further, so that the dynamics learn its tokens anew.
        changes: settings of the dynamics by name; those equal to the model's change nothing.

    Raises:
        ValueError: one differs from the model's and shapes its weights or what its inputs mean.
    """
    model = _changed(init, kind, changes) if changes else None
    return TrainingJob(
        kind=kind, output=output, dataset=data, config=config, seed=seed, model=model, tokenizer=tokenizer, init=init
    )


def _changed(init: StoredPath, kind: WorldModelKind, changes: Mapping[str, Any]) -> DynamicsConfig | None:
    """The dynamics' settings with those that a fine-tuning may change; None if none changes."""
    own: DynamicsConfig = read_config(GenieRedux if kind == "genie_redux" else GenieReduxG, init).dynamics
    changed = {name: value for name, value in changes.items() if value != getattr(own, name)}
    for name, value in changed.items():
        if name not in FREE_AFTER_TRAINING:
            raise ValueError(
                f"dynamics.{name} is {value!r}: must be {getattr(own, name)!r}, as in {init}; "
                f"a fine-tuning may change {', '.join(FREE_AFTER_TRAINING)}"
            )
    return replace(own, **changed) if changed else None


def upscaler(recipe: RecipeConfig, data: Data, output: StoredPath) -> TrainingJob:
    """An upscaler from scratch, on a dataset with large frames."""
    return TrainingJob(
        kind="upscaler",
        output=output,
        dataset=data,
        config=recipe.train_upscaler,
        seed=recipe.seed,
        model=recipe.upscaler,
    )
