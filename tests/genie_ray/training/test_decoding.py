"""A tuned decoder put into the world model, from which its dynamics are then fine-tuned."""

from pathlib import Path

import pytest
import torch

from genie_ray.replay.loading.mixture import open_mix
from genie_ray.training import jobs
from genie_ray.training.config import RecipeConfig
from genie_ray.training.decoding import save_with_tokenizer
from genie_ray.training.tasks import DecoderTask, DynamicsTask
from tests.genie_ray.tiny_world import guided_model, tiny_dataset
from world_model import checkpoint
from world_model.genie import GenieReduxG
from world_model.tokenizer import Tokenizer

RECIPE = RecipeConfig()


def test_the_fine_tuned_model_decodes_as_it_was_tuned_to(tmp_path: Path) -> None:
    data, base = tiny_dataset(tmp_path / "data").root, guided_model()
    checkpoint.save(base, tmp_path / "base", provenance={"iteration": 7, "action_names": ["LEFT"]})
    checkpoint.save(base.tokenizer, tmp_path / "tokenizer", provenance={})
    tuning = jobs.decoder(RECIPE, data, tmp_path / "decoder", tokenizer=tmp_path / "tokenizer")
    tuned = DecoderTask(tuning).build(open_mix(data))
    torch.nn.init.normal_(tuned.pixel_head.next_frames.weight)  # as if trained
    checkpoint.save(tuned, tmp_path / "decoder", provenance={"iteration": 9})

    save_with_tokenizer(tmp_path / "adapted", tmp_path / "base", tmp_path / "decoder")
    description = checkpoint.read_description(tmp_path / "adapted")
    assert description["provenance"]["model"]["iteration"] == 7
    assert description["provenance"]["tokenizer"] == {"iteration": 9}
    assert description["provenance"]["action_names"] == ["LEFT"]
    job = jobs.finetuning(RECIPE.finetune, data, tmp_path / "out", init=tmp_path / "adapted", seed=0)
    model = DynamicsTask(job).build(open_mix(data))
    assert checkpoint.weights_hash(model.tokenizer) == checkpoint.weights_hash(tuned)
    assert checkpoint.tokens_hash(model.tokenizer) == checkpoint.tokens_hash(base.tokenizer)
    assert checkpoint.weights_hash(model.dynamics) == checkpoint.weights_hash(base.dynamics)


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    checkpoint.save(guided_model(), tmp_path / "base", provenance={})
    checkpoint.save(Tokenizer(guided_model().tokenizer.config), tmp_path / "other", provenance={})
    with pytest.raises(ValueError, match="the tokenizer does not match the dynamics"):
        save_with_tokenizer(tmp_path / "adapted", tmp_path / "base", tmp_path / "other")
    assert not (tmp_path / "adapted").exists()
    assert isinstance(checkpoint.load(tmp_path / "base"), GenieReduxG)
