"""Checkpoints: a directory with config.json (kind, configuration, hashes, provenance) and model.safetensors.

It may also hold a model card, README.md.

A checkpoint holds everything that affects a model's output; a world model's includes its tokenizer. The encoder and the
codebook define what tokens mean: a world model's tokenizer may be replaced by a copy with a tuned decoder, not by any
other.
"""

import dataclasses
import hashlib
import json
import shutil
import typing
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, cast, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from world_model.genie import GenieRedux, GenieReduxConfig, GenieReduxG, GenieReduxGConfig
from world_model.layers.plain_config import LONGEST, config_from_dict
from world_model.tokenizer import Tokenizer, TokenizerConfig
from world_model.upscaler import Upscaler, UpscalerConfig

WorldModel = GenieReduxG | GenieRedux
Model = Tokenizer | WorldModel | Upscaler
M = TypeVar("M", bound=Model)

FORMAT = 1
CONFIG_FILE = "config.json"
NEAR = ("best", "dynamics/best", "finetuned/best", "tokenizer/best")
"""Where a checkpoint is in a training's or a run's directory, which people name by mistake."""
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
KINDS: dict[str, tuple[type, type]] = {
    "tokenizer": (Tokenizer, TokenizerConfig),
    "genie_redux_g": (GenieReduxG, GenieReduxGConfig),
    "genie_redux": (GenieRedux, GenieReduxConfig),
    "upscaler": (Upscaler, UpscalerConfig),
}


def weights_hash(model: nn.Module) -> str:
    """SHA-256 (hex) over names, types, shapes and values of all parameters and saved buffers."""
    return _state_hash(model.state_dict())


def _state_hash(state: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _description_hash(description: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what config.json says, but for this hash."""
    rest = {name: value for name, value in description.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def tokens_hash(tokenizer: Tokenizer) -> str:
    """SHA-256 (hex) of what gives tokens their meaning; decoder-only tuning does not change it."""
    return _state_hash(tokenizer.token_state())


def _tokenizer_hash(model: Model) -> str | None:
    """Hash of the tokenizer that a model is or has; None for an upscaler, which has none."""
    if isinstance(model, Upscaler):
        return None
    return weights_hash(model if isinstance(model, Tokenizer) else model.tokenizer)


def save(model: Model, directory: str | Path, *, provenance: Mapping[str, Any], card: str | None = None) -> None:
    """Writes a checkpoint; an old one at `directory` is replaced when the new one is complete.

    An error leaves the old one in place. So does a kill, except between the two renames: then the old one is in the
    sibling `.NAME.saving/old`, and the next save first puts it back. Only one process at a time may save to a
    directory: an existing `.NAME.saving` is assumed to be left by a killed save.

    Args:
        model: what to save.
        directory: where to save it.
        provenance: JSON values that say where the model comes from (dataset hashes, run config, steps, …).
        card: text of a model card for people; nothing parses it.
    """
    directory = Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    (kind,) = [name for name, (model_class, _) in KINDS.items() if type(model) is model_class]
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    description = {
        "format": FORMAT,
        "kind": kind,
        "config": dataclasses.asdict(model.config),
        "weights_sha256": _state_hash(state),
        "tokenizer_sha256": _tokenizer_hash(model),
        "provenance": dict(provenance),
    }
    description["sha256"] = _description_hash(description)
    staging = directory.with_name(f".{directory.name}.saving")
    new, old = staging / "new", staging / "old"
    _settle(directory, staging)
    try:
        new.mkdir(parents=True)
        (new / CONFIG_FILE).write_text(json.dumps(description, indent=2) + "\n")
        if card is not None:
            (new / CARD_FILE).write_text(card, encoding="utf-8")
        save_file(state, new / WEIGHTS_FILE)
        if directory.exists():
            directory.rename(old)
        new.rename(directory)
    finally:
        _settle(directory, staging)


def _settle(directory: Path, staging: Path) -> None:
    """Puts the old checkpoint back if no new one replaced it, and removes anything else that a save left."""
    if (staging / "old").exists() and not directory.exists():
        (staging / "old").rename(directory)
    if staging.exists():
        shutil.rmtree(staging)


def load(directory: str | Path, device: str | torch.device = "cpu") -> Model:
    """Loads a checkpoint's model, in evaluation mode. Does not change torch's random state.

    Raises ValueError if the directory is not a checkpoint, is damaged, or its parts do not belong together.
    """
    directory = Path(directory)
    description = read_description(directory)
    model_class, config_class = KINDS[description["kind"]]
    try:
        config = config_from_dict(config_class, description["config"])
        state = load_file(directory / WEIGHTS_FILE)
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"checkpoint {directory} is damaged: {_one_line(error)}") from error
    if _state_hash(state) != description["weights_sha256"]:
        raise ValueError(f"checkpoint {directory} is damaged: {WEIGHTS_FILE} does not match {CONFIG_FILE}")
    try:
        with torch.random.fork_rng(devices=[]):
            model: Model = model_class(config)
    except (RuntimeError, MemoryError, OverflowError) as error:
        raise ValueError(
            f"checkpoint {directory} describes a model that cannot be built: {_one_line(error)}"
        ) from error
    load_weights(model, state, source=str(directory))
    if _tokenizer_hash(model) != description["tokenizer_sha256"]:
        raise ValueError(f"checkpoint {directory} does not hold the tokenizer that it was trained with")
    return model.to(device).eval()


@overload
def load_as(model_class: type[M], directory: str | Path, device: str | torch.device = "cpu") -> M: ...
@overload
def load_as(model_class: UnionType, directory: str | Path, device: str | torch.device = "cpu") -> WorldModel: ...
def load_as(
    model_class: type[nn.Module] | UnionType, directory: str | Path, device: str | torch.device = "cpu"
) -> Model:
    """As `load`, for a checkpoint that must hold a certain model, or a `WorldModel` of either kind.

    Raises ValueError if it holds another.
    """
    require_kind(model_class, directory)
    return load(directory, device)


def load_tokenizer(directory: str | Path) -> Tokenizer:
    """The tokenizer of a checkpoint: of its own, or a world model's.

    Raises ValueError if it holds neither.
    """
    require_kind(Tokenizer | WorldModel, directory)
    model = load(directory)
    return model if isinstance(model, Tokenizer) else cast(WorldModel, model).tokenizer


def with_tokenizer(model: WorldModel, tokenizer: Tokenizer) -> WorldModel:
    """Replaces the world model's tokenizer by a decoder-tuned one, in place; returns the model.

    Raises ValueError if the tokenizer's tokens are not those that the dynamics learned.
    """
    own = model.tokenizer.config
    same_config = dataclasses.replace(tokenizer.config, decoder_mean_frame=own.decoder_mean_frame) == own
    needed, given = tokens_hash(model.tokenizer), tokens_hash(tokenizer)
    if not same_config or given != needed:
        raise ValueError(
            f"the tokenizer does not match the dynamics: its tokens are {given[:12]}, needed: {needed[:12]}"
        )
    model.tokenizer = tokenizer.requires_grad_(False)
    model.config = dataclasses.replace(model.config, tokenizer=tokenizer.config)
    return model.eval()


def describe(directory: str | Path) -> dict[str, Any]:
    """What a checkpoint holds: kind, parameters (total and by part), hashes, configuration, provenance.

    Tokens mean the same if `tokens_sha256` are equal. Loads the checkpoint, so that a damaged one is rejected.
    """
    description, model = read_description(directory), load(directory)
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    hashes = {"weights_sha256": description["weights_sha256"]}
    if not isinstance(model, Upscaler):
        tokenizer = model if isinstance(model, Tokenizer) else model.tokenizer
        hashes |= {"tokenizer_sha256": description["tokenizer_sha256"], "tokens_sha256": tokens_hash(tokenizer)}
    return {
        "kind": description["kind"],
        "parameters": {"all": sum(p.numel() for p in model.parameters()), **counts},
        **hashes,
        "config": description["config"],
        "provenance": description["provenance"],
    }


def read_config(model_class: type[nn.Module] | UnionType, directory: str | Path) -> Any:
    """The configuration in a checkpoint that must hold `model_class`, as its config class. Reads no weights."""
    description = require_kind(model_class, directory)
    _, config_class = KINDS[description["kind"]]
    try:
        return config_from_dict(config_class, description["config"])
    except ValueError as error:
        raise ValueError(f"checkpoint {directory} is damaged: {_one_line(error)}") from error


def read_tokenizer_config(directory: str | Path) -> TokenizerConfig:
    """The configuration of the tokenizer that `load_tokenizer` loads. Reads no weights."""
    config = read_config(Tokenizer | WorldModel, directory)
    return config if isinstance(config, TokenizerConfig) else config.tokenizer


def require_kind(model_class: type[nn.Module] | UnionType, directory: str | Path) -> dict[str, Any]:
    """The content of config.json; ValueError if the checkpoint holds a model of another class. Reads no weights."""
    description = read_description(directory)
    held, _ = KINDS[description["kind"]]
    allowed = typing.get_args(model_class) or (model_class,)
    if held not in allowed:
        needed = " or ".join(one.__name__ for one in allowed)
        raise ValueError(f"checkpoint {directory} holds {held.__name__}, needed: {needed}")
    return description


def read_description(directory: str | Path) -> dict[str, Any]:
    """The content of config.json: format, kind, config, hashes, provenance. ValueError if it is not a checkpoint's."""
    path = Path(directory) / CONFIG_FILE
    try:
        description = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        near = [place for place in NEAR if (Path(directory) / place / CONFIG_FILE).is_file()]
        hint = f"; there is one in {Path(directory) / near[0]}" if near else ""
        raise ValueError(f"{directory} is not a checkpoint: it has no {CONFIG_FILE}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a JSON file: {_one_line(error)}") from error
    required = {"format", "kind", "config", "weights_sha256", "tokenizer_sha256", "provenance"}
    if not isinstance(description, dict) or not required <= description.keys():
        raise ValueError(f"{path} does not describe a checkpoint, needed: {', '.join(sorted(required))}")
    if description["format"] != FORMAT or description["kind"] not in list(KINDS):
        given = f"format {description['format']!r} and kind {description['kind']!r}"
        raise ValueError(f"{path} has {given[:LONGEST]}, allowed: {FORMAT} and {', '.join(KINDS)}")
    if description.get("sha256") not in (None, _description_hash(description)):  # None: as once written
        raise ValueError(f"{path} is damaged: it was changed after it was written")
    return description


def load_weights(model: nn.Module, state: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Copies `state` into `model`; ValueError naming the first tensor that is missing, unknown or of another shape."""
    own = model.state_dict()
    for name in sorted(own.keys() | state.keys()):
        if name not in state:
            raise ValueError(f"{source} does not fit: it lacks {name}")
        if name not in own:
            raise ValueError(f"{source} does not fit: the model has no {name}")
        if own[name].shape != state[name].shape:
            raise ValueError(
                f"{source} does not fit: {name} has shape {list(state[name].shape)}, allowed: {list(own[name].shape)}"
            )
    model.load_state_dict(state)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[: 2 * LONGEST]
