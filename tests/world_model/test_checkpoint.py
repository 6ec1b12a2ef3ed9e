"""Checkpoints: what was saved is loaded, and nothing else is."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import guided_model, random_clip, tokenizer_config, train, unguided_config
from torch import Tensor

from world_model import checkpoint
from world_model.genie import GenieRedux, GenieReduxG
from world_model.layers.quantizer import QuantizerConfig
from world_model.tokenizer import Tokenizer

KINDS = ["cosine", "ema", "fsq"]


def edit_description(directory: Path, **changes: object) -> None:
    """Changes a description and leaves out its hash, as in checkpoints that have none."""
    path = directory / checkpoint.CONFIG_FILE
    description = {**json.loads(path.read_text()), **changes}
    description.pop("sha256", None)
    path.write_text(json.dumps(description))


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_comes_back(kind: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer(tokenizer_config(kind, mean_frame=True))
    frames_BTHWC, _ = random_clip()
    tokenizer.initialize_mean_frame(frames_BTHWC)
    tokenizer(frames_BTHWC)  # initialises an "ema" codebook
    checkpoint.save(tokenizer.eval(), tmp_path / "tokenizer", provenance={"step": 7})
    loaded = checkpoint.load(tmp_path / "tokenizer")
    assert isinstance(loaded, Tokenizer)
    assert loaded.config == tokenizer.config
    assert not loaded.training
    assert torch.equal(loaded(frames_BTHWC).reconstruction_BTHWC, tokenizer(frames_BTHWC).reconstruction_BTHWC)
    assert checkpoint.weights_hash(loaded) == checkpoint.weights_hash(tokenizer)
    assert checkpoint.read_description(tmp_path / "tokenizer")["provenance"] == {"step": 7}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("alignment", ["shifted", "aligned"])
def test_a_world_model_comes_back_with_its_tokenizer(kind: str, alignment: str, tmp_path: Path) -> None:
    model = guided_model(kind, alignment=alignment)
    frames_BTHWC, actions_BT = random_clip()
    checkpoint.save(model, tmp_path / "dynamics", provenance={})
    state = torch.get_rng_state()
    loaded = checkpoint.load(tmp_path / "dynamics")
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(loaded, GenieReduxG)
    assert loaded.config == model.config
    logits = [m.one_step_logits(frames_BTHWC[:, :2], actions_BT) for m in (model, loaded)]
    assert torch.equal(*logits)
    description = checkpoint.read_description(tmp_path / "dynamics")
    assert description["tokenizer_sha256"] == checkpoint.weights_hash(model.tokenizer)


def test_an_unguided_world_model_comes_back(tmp_path: Path) -> None:
    model = GenieRedux(unguided_config()).eval()
    checkpoint.save(model, tmp_path / "genie", provenance={})
    loaded = checkpoint.load(tmp_path / "genie")
    assert isinstance(loaded, GenieRedux)
    torch.manual_seed(1)
    wanted = model(random_clip()[0]).loss
    torch.manual_seed(1)
    assert torch.equal(loaded(random_clip()[0]).loss, wanted)


def test_the_hash_tells_weights_apart() -> None:
    tokenizer = Tokenizer(tokenizer_config())
    before = checkpoint.weights_hash(tokenizer)
    with torch.no_grad():
        tokenizer.quantizer.codebook_KC[3, 2] += 1e-3
    assert checkpoint.weights_hash(tokenizer) != before


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    first, second = Tokenizer(tokenizer_config()), Tokenizer(tokenizer_config())
    for tokenizer in (first, second):
        checkpoint.save(tokenizer, tmp_path / "tokenizer", provenance={})
    assert checkpoint.weights_hash(checkpoint.load(tmp_path / "tokenizer")) == checkpoint.weights_hash(second)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]
    assert sorted(path.name for path in (tmp_path / "tokenizer").iterdir()) == ["config.json", "model.safetensors"]


def test_a_model_card_lies_beside_the_weights(tmp_path: Path) -> None:
    tokenizer = Tokenizer(tokenizer_config())
    checkpoint.save(tokenizer, tmp_path / "tokenizer", provenance={}, card="# A tokenizer — 16×16\n")
    assert (tmp_path / "tokenizer" / "README.md").read_text(encoding="utf-8") == "# A tokenizer — 16×16\n"
    assert checkpoint.weights_hash(checkpoint.load(tmp_path / "tokenizer")) == checkpoint.weights_hash(tokenizer)
    checkpoint.save(tokenizer, tmp_path / "tokenizer", provenance={})  # the new checkpoint has no card
    assert not (tmp_path / "tokenizer" / "README.md").exists()


@pytest.mark.parametrize("failing", ["save_file", "first rename", "second rename"])
def test_a_failed_save_leaves_the_old_checkpoint(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, rename = Tokenizer(tokenizer_config()), Path.rename
    checkpoint.save(first, tmp_path / "tokenizer", provenance={})
    moved = {"first rename": "tokenizer", "second rename": "new"}.get(failing)

    def broken_rename(self: Path, target: Path) -> Path:
        if self.name == moved:
            raise OSError("disk full")
        return rename(self, target)

    def broken_save_file(state: dict[str, Tensor], path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Path, "rename", broken_rename)
    if failing == "save_file":
        monkeypatch.setattr(checkpoint, "save_file", broken_save_file)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(Tokenizer(tokenizer_config()), tmp_path / "tokenizer", provenance={})
    assert checkpoint.weights_hash(checkpoint.load(tmp_path / "tokenizer")) == checkpoint.weights_hash(first)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]


def leave(killed: str, tmp_path: Path) -> None:
    """Leaves beside a saved checkpoint "tokenizer" what a save killed at that point would."""
    staging = tmp_path / ".tokenizer.saving"
    checkpoint.save(Tokenizer(tokenizer_config()), staging / "new", provenance={})
    if killed == "while writing":
        (staging / "new" / "model.safetensors").write_bytes(b"half")
    elif killed == "between the renames":
        (tmp_path / "tokenizer").rename(staging / "old")
    else:
        (staging / "new").rename(staging / "old")


@pytest.mark.parametrize("killed", ["while writing", "between the renames", "after the renames"])
@pytest.mark.parametrize("fails", [False, True])
def test_the_next_save_mends_a_killed_one(
    killed: str, fails: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, next_one = Tokenizer(tokenizer_config()), Tokenizer(tokenizer_config())
    checkpoint.save(saved, tmp_path / "tokenizer", provenance={})
    leave(killed, tmp_path)
    if fails:
        monkeypatch.setattr(checkpoint, "save_file", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            checkpoint.save(next_one, tmp_path / "tokenizer", provenance={})
    else:
        checkpoint.save(next_one, tmp_path / "tokenizer", provenance={})
    wanted = saved if fails else next_one
    assert checkpoint.weights_hash(checkpoint.load(tmp_path / "tokenizer")) == checkpoint.weights_hash(wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer"]


def test_damaged_and_foreign_directories_are_refused_in_one_line(tmp_path: Path) -> None:
    directory = tmp_path / "tokenizer"

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message) as error:
            checkpoint.load(directory)
        assert "\n" not in str(error.value)
        assert str(directory) in str(error.value)

    refused("is not a checkpoint: it has no config.json$")
    (directory / "best").mkdir(parents=True)
    (directory / "best" / "config.json").touch()
    refused("has no config.json; there is one in .*tokenizer/best$")
    (directory / "config.json").write_text("{")
    refused("is not a JSON file")
    (directory / "config.json").write_text('{"model": "other"}')
    refused("does not describe a checkpoint")

    tokenizer = Tokenizer(tokenizer_config())
    checkpoint.save(tokenizer, directory, provenance={})
    config = checkpoint.read_description(directory)["config"]
    weights = (directory / "model.safetensors").read_bytes()
    (directory / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    refused("is damaged")
    (directory / "model.safetensors").unlink()
    refused("is damaged")
    (directory / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    refused("is damaged: model.safetensors does not match config.json")
    (directory / "model.safetensors").write_bytes(weights)
    edit_description(directory, config={**config, "dim": 48})
    refused(r"does not fit: .* has shape \[.*\], allowed: \[.*\]")
    edit_description(directory, config={**config, "width": 48})
    refused("width")
    edit_description(directory, config={**config, "patch_size": 5})
    refused("allowed: multiples of patch_size 5")
    edit_description(directory, config=config, kind="diffusion")
    refused("kind 'diffusion'")
    edit_description(directory, kind="tokenizer", format=99)
    refused("format 99")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"token_input_scale": 10.0', '"token_input_scale": 11.0', "was changed after it was written"),
        ('"sha256": "', '"sha256": "0', "was changed after it was written"),
        ('"genie_redux_g"', "[1]", r"kind \[1\], allowed"),
        ('"steps": 7', '"steps": ' + "[" * 20_000, "is not a JSON file"),
    ],
)
def test_a_description_that_was_changed_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    checkpoint.save(guided_model(), tmp_path, provenance={"steps": 7})
    path = tmp_path / checkpoint.CONFIG_FILE
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        checkpoint.load(tmp_path)


def test_a_config_of_other_types_or_impossible_sizes_is_refused(tmp_path: Path) -> None:
    model = Tokenizer(tokenizer_config())
    for name, value in {"mean_frame": "no", "dim": 32.5, "blocks": 10**9, "quantizer": 3, "head_dim": 2**40}.items():
        checkpoint.save(model, tmp_path / "tokenizer", provenance={})
        config = checkpoint.read_description(tmp_path / "tokenizer")["config"]
        edit_description(tmp_path / "tokenizer", config={**config, name: value})
        with pytest.raises(ValueError, match=str(tmp_path)):
            checkpoint.load(tmp_path / "tokenizer")


def tuned_to(frames_BTHWC: Tensor, tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer after a few steps of decoder-only tuning."""
    tuned = tokenizer.for_decoder_tuning().train()
    train(tuned, lambda: tuned(frames_BTHWC).loss, steps=3)
    return tuned.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_world_model_takes_its_tokenizer_with_a_tuned_decoder(kind: str, tmp_path: Path) -> None:
    model = guided_model(kind)
    frames_BTHWC, actions_BT = random_clip()
    tuned = tuned_to(frames_BTHWC, model.tokenizer)
    assert checkpoint.tokens_hash(tuned) == checkpoint.tokens_hash(model.tokenizer)
    assert checkpoint.weights_hash(tuned) != checkpoint.weights_hash(model.tokenizer)
    before = model.one_step_logits(frames_BTHWC[:, :2], actions_BT)
    pictures_BTHWC = tuned.decode(tuned.encode(frames_BTHWC))
    checkpoint.save(checkpoint.with_tokenizer(model, tuned), tmp_path / "swapped", provenance={})
    swapped = checkpoint.load_as(checkpoint.WorldModel, tmp_path / "swapped")
    assert isinstance(swapped, GenieReduxG)
    assert torch.equal(swapped.one_step_logits(frames_BTHWC[:, :2], actions_BT), before)
    assert torch.equal(swapped.tokenizer.decode(swapped.tokenizer.encode(frames_BTHWC)), pictures_BTHWC)
    assert not any(parameter.requires_grad for parameter in swapped.tokenizer.parameters())


def test_a_tokenizer_with_other_tokens_is_refused() -> None:
    model = guided_model("fsq")
    other = Tokenizer(tokenizer_config("fsq"))
    with pytest.raises(ValueError, match=r"the tokenizer does not match the dynamics: its tokens are \w{12}, needed"):
        checkpoint.with_tokenizer(model, other)
    # The same weights with other levels: also 4·3·3 codes, but they stand for other vectors.
    quantizer = QuantizerConfig(kind="fsq", codes=32, code_dim=8, levels=(3, 4, 3))
    other = Tokenizer(tokenizer_config("fsq", quantizer=quantizer))
    other.load_state_dict(model.tokenizer.state_dict())
    with pytest.raises(ValueError, match="does not match the dynamics"):
        checkpoint.with_tokenizer(model, other)


def test_a_description_tells_parts_and_tokens(tmp_path: Path) -> None:
    model = GenieRedux(unguided_config()).eval()
    checkpoint.save(model, tmp_path / "genie", provenance={"iteration": 3})
    checkpoint.save(model.tokenizer, tmp_path / "tokenizer", provenance={})
    told = checkpoint.describe(tmp_path / "genie")
    assert told["kind"] == "genie_redux"
    assert list(told["parameters"]) == ["all", "tokenizer", "dynamics", "latent_actions"]
    assert told["parameters"]["all"] == sum(list(told["parameters"].values())[1:])
    assert told["provenance"] == {"iteration": 3}
    assert told["tokens_sha256"] == checkpoint.describe(tmp_path / "tokenizer")["tokens_sha256"]
    with pytest.raises(ValueError, match="holds Tokenizer, needed: GenieReduxG or GenieRedux"):
        checkpoint.load_as(checkpoint.WorldModel, tmp_path / "tokenizer")


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    model = guided_model()
    checkpoint.save(model, tmp_path / "genie", provenance={})
    other = {f"tokenizer.{name}": value for name, value in Tokenizer(tokenizer_config()).state_dict().items()}
    state = {**load_file(tmp_path / "genie" / "model.safetensors"), **other}
    save_file(state, tmp_path / "genie" / "model.safetensors")
    model.load_state_dict(state)
    edit_description(tmp_path / "genie", weights_sha256=checkpoint.weights_hash(model))
    with pytest.raises(ValueError, match="does not hold the tokenizer that it was trained with"):
        checkpoint.load(tmp_path / "genie")
