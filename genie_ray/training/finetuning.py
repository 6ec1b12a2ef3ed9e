"""Fine-tuning a world model on new play: the decoder, the model with that decoder, then the dynamics.

The paper's way to new scenes (Savov et al., CVPR 2025, arXiv 2504.02515, Sec. 4): first the decoder is tuned, which
changes no token, then the dynamics are fine-tuned.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from genie_ray.base.session import RayConfig
from genie_ray.storage.paths import StoredPath
from genie_ray.training import jobs
from genie_ray.training.config import RecipeConfig
from genie_ray.training.decoding import save_with_tokenizer
from genie_ray.training.train import train

ADAPTED = "world_model"
"""Folder in a decoder's training: the base model with that decoder."""


@dataclass(frozen=True)
class FineTuningStep:
    """One step of a fine-tuning; it is done when its artefact exists."""

    output: StoredPath
    artefact: StoredPath
    run: Callable[[], object]


def finetuning_steps(
    recipe: RecipeConfig,
    data: jobs.Data,
    ray_config: RayConfig,
    *,
    base: StoredPath,
    decoder: StoredPath,
    finetuned: StoredPath,
) -> tuple[FineTuningStep, ...]:
    """The steps of fine-tuning a base model on a dataset, in order; each can be interrupted and repeated.

    Args:
        base: checkpoint of the base model.
        decoder: directory of the decoder's training and, in it, of the base model with that decoder.
        finetuned: directory of the dynamics' training; its `best/` is the result.
    """
    adapted = decoder / ADAPTED
    tuning = jobs.decoder(recipe, data, decoder, tokenizer=base)

    def adapt_dynamics() -> StoredPath:
        job = jobs.finetuning(recipe.finetune, data, finetuned, init=adapted, seed=recipe.seed)
        return train(job, ray_config)

    return (
        FineTuningStep(decoder, decoder / "last" / "config.json", lambda: train(tuning, ray_config)),
        FineTuningStep(adapted, adapted / "config.json", lambda: save_with_tokenizer(adapted, base, decoder / "best")),
        FineTuningStep(finetuned, finetuned / "last" / "config.json", adapt_dynamics),
    )
