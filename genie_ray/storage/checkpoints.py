"""World models' checkpoints (`world_model.checkpoint`), wherever they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, overload

import torch
from torch import nn

from genie_ray.storage.paths import Location, StoredPath, resolve
from genie_ray.storage.whole import read_copy, whole_directory
from world_model import checkpoint
from world_model.checkpoint import CONFIG_FILE, Model, WorldModel
from world_model.tokenizer import Tokenizer, TokenizerConfig

M = TypeVar("M", bound=Model)


def save(model: Model, directory: StoredPath, *, provenance: Mapping[str, Any], card: str | None = None) -> None:
    """See `world_model.checkpoint.save`. On an object store, one without config.json is not whole."""
    if isinstance(directory, Path):
        checkpoint.save(model, directory, provenance=provenance, card=card)
        return
    with whole_directory(directory, last=CONFIG_FILE) as local:
        checkpoint.save(model, local, provenance=provenance, card=card)


@overload
def load_as(model_class: type[M], directory: Location, device: str | torch.device = "cpu") -> M: ...
@overload
def load_as(model_class: UnionType, directory: Location, device: str | torch.device = "cpu") -> WorldModel: ...
def load_as(model_class: Any, directory: Location, device: str | torch.device = "cpu") -> Any:
    """See `world_model.checkpoint.load_as`."""
    with _read(directory) as local:
        return checkpoint.load_as(model_class, local, device)


def load_tokenizer(directory: Location) -> Tokenizer:
    """See `world_model.checkpoint.load_tokenizer`."""
    with _read(directory) as local:
        return checkpoint.load_tokenizer(local)


def read_config(model_class: type[nn.Module] | UnionType, directory: Location) -> Any:
    """See `world_model.checkpoint.read_config`."""
    with _read(directory, CONFIG_FILE) as local:
        return checkpoint.read_config(model_class, local)


def read_tokenizer_config(directory: Location) -> TokenizerConfig:
    """See `world_model.checkpoint.read_tokenizer_config`."""
    with _read(directory, CONFIG_FILE) as local:
        return checkpoint.read_tokenizer_config(local)


def read_description(directory: Location) -> dict[str, Any]:
    """See `world_model.checkpoint.read_description`."""
    with _read(directory, CONFIG_FILE) as local:
        return checkpoint.read_description(local)


def _read(directory: Location, *names: str) -> AbstractContextManager[Path]:
    """A checkpoint on this machine's disk."""
    return read_copy(directory if isinstance(directory, Path) else resolve(directory), *names)
