"""A world model with its own tokenizer's decoder tuned to other scenes, as a checkpoint: see finetuning.py."""

from __future__ import annotations

from genie_ray.storage import checkpoints
from genie_ray.storage.paths import StoredPath
from genie_ray.training.card import model_card
from world_model import checkpoint
from world_model.tokenizer import Tokenizer


def save_with_tokenizer(output: StoredPath, model: StoredPath, tokenizer: StoredPath) -> None:
    """Writes a world model's checkpoint with the tokenizer of another one; its provenance holds those of both.

    Args:
        output: directory of the new checkpoint.
        model: checkpoint of a world model.
        tokenizer: checkpoint of its tokenizer after a training of the kind "decoder".

    Raises:
        ValueError: the tokenizer's tokens are not those that the dynamics learned.
    """
    tuned = checkpoints.load_as(Tokenizer, tokenizer)
    swapped = checkpoint.with_tokenizer(checkpoints.load_as(checkpoint.WorldModel, model), tuned)
    sources = {
        name: checkpoints.read_description(path)["provenance"]
        for name, path in (("model", model), ("tokenizer", tokenizer))
    }
    provenance = {**sources, "action_names": sources["model"].get("action_names")}
    checkpoints.save(swapped, output, provenance=provenance, card=model_card(swapped, provenance))
