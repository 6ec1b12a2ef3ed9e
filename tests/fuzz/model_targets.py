"""Targets: checkpoints, published `.pt` files, and saved policies."""

import io
import json
import math
import os
import struct
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.random import Generator

from policies.autoexplore.config import AutoExploreModuleConfig
from policies.autoexplore.module import AutoExploreModule
from policies.ppo.config import ExplorerPPOSettings
from policies.ppo.module import PPOModule
from policies.saved import POLICY_FILE, load_policy, read_policy, save_policy
from policies.saved import WEIGHTS_FILE as POLICY_WEIGHTS
from tests.fuzz.judging import Check, accepted
from tests.fuzz.mutate import damaged_bytes, damaged_json, damaged_value, json_text, pick
from world_model import checkpoint
from world_model.checkpoint import weights_hash
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieReduxG, GenieReduxGConfig
from world_model.layers.quantizer import QuantizerConfig
from world_model.published import import_published
from world_model.tokenizer import Tokenizer, TokenizerConfig
from world_model.upscaler import Upscaler, UpscalerConfig

PACK = Path(os.environ.get("GENIE_RAY_PARITY", Path(__file__).parents[2] / ".." / "shared" / "parity"))
"""Published files; where there are none, their two targets cannot run."""
SIZES: dict[str, Any] = {"dim": 8, "blocks": 1, "heads": 1, "head_dim": 8, "max_frames": 2}


def _models() -> list[Any]:
    torch.manual_seed(0)
    tokenizer = TokenizerConfig(
        frame_size=8, patch_size=4, quantizer=QuantizerConfig(kind="fsq", levels=(3, 3)), **SIZES
    )
    return [
        Tokenizer(tokenizer),
        GenieReduxG(GenieReduxGConfig(tokenizer=tokenizer, dynamics=DynamicsConfig(**SIZES))),
        Upscaler(UpscalerConfig(frame_size=8, scale=2, channels=(2,))),
    ]


def checkpoint_configs(directory: Path) -> Check:
    """A checkpoint's `config.json`."""
    kept = _saved_models(directory)

    def check(rng: Generator) -> None:
        path, model = pick(rng, kept)
        whole = (path / checkpoint.CONFIG_FILE).read_bytes()
        try:
            values = json.loads(whole)
            is_old = rng.random() < 0.4
            if is_old:  # without a hash, as it once was written
                del values["sha256"]
            damaged = damaged_json(rng, values)
            (path / checkpoint.CONFIG_FILE).write_bytes(damaged)
            is_old |= b'"sha256"' not in damaged  # the hash itself is lost
            accepted(lambda: checkpoint.read_config(type(model), path))
            if loaded := accepted(lambda: checkpoint.load(path)):
                assert type(loaded[0]) is type(model)
                assert is_old or loaded[0].config == model.config, f"accepted another config: {loaded[0].config}"
                assert weights_hash(loaded[0]) == weights_hash(model)
            accepted(lambda: checkpoint.describe(path))
        finally:
            (path / checkpoint.CONFIG_FILE).write_bytes(whole)

    return check


def checkpoint_weights(directory: Path) -> Check:
    """A checkpoint's `model.safetensors`."""
    kept = _saved_models(directory)

    def check(rng: Generator) -> None:
        path, model = pick(rng, kept)
        whole = (path / checkpoint.WEIGHTS_FILE).read_bytes()
        try:
            (path / checkpoint.WEIGHTS_FILE).write_bytes(_damaged_safetensors(rng, whole))
            if loaded := accepted(lambda: checkpoint.load(path)):
                assert weights_hash(loaded[0]) == weights_hash(model), "accepted other weights"
        finally:
            (path / checkpoint.WEIGHTS_FILE).write_bytes(whole)

    return check


def _saved_models(directory: Path) -> list[tuple[Path, Any]]:
    kept = []
    for number, model in enumerate(_models()):
        checkpoint.save(model, directory / str(number), provenance={"steps": 3, "data": "a"})
        kept.append((directory / str(number), model))
    return kept


def _damaged_safetensors(rng: Generator, content: bytes) -> bytes:
    """Damaged anywhere, in its header, or with a well-formed header that says something else."""
    length = struct.unpack("<Q", content[:8])[0]
    if (kind := rng.random()) < 0.3:
        return damaged_bytes(rng, content)
    if kind < 0.5:
        return damaged_bytes(rng, content, 0, 8 + length)
    header = json_text(damaged_value(rng, json.loads(content[8 : 8 + length]))).encode(errors="replace")
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def published_bytes(directory: Path) -> Check:
    """The bytes of published files, new and old in format."""
    files = {name: (PACK / name).read_bytes() for name in ("tokenizer.pt", "genie_redux_guided.pt", "genie_redux.pt")}
    hashes = _import_hashes(directory, files)
    old = io.BytesIO()
    torch.save(torch.load(PACK / "tokenizer.pt", weights_only=True), old, _use_new_zipfile_serialization=False)

    def check(rng: Generator) -> None:
        name = pick(rng, list(files))
        content = damaged_bytes(rng, files[name], pick(rng, (0, 0, max(0, len(files[name]) - 9000))))
        is_old = name == "tokenizer.pt" and rng.random() < 0.2
        if is_old:
            content = damaged_bytes(rng, old.getvalue(), 0, 4000)
        (directory / name).write_bytes(content)
        try:
            imported = accepted(lambda: _import(directory, name))
            if imported and not is_old:  # the old format has no checksums
                assert weights_hash(imported[0]) == hashes[name], "accepted other weights"
        finally:
            (directory / name).write_bytes(files[name])

    return check


def published_values(directory: Path) -> Check:
    """Published files with other content."""
    files = {name: (PACK / name).read_bytes() for name in ("tokenizer.pt", "genie_redux_guided.pt", "genie_redux.pt")}
    _import_hashes(directory, files)

    def check(rng: Generator) -> None:
        name = pick(rng, list(files))
        content = torch.load(PACK / name, weights_only=True)
        weights = content["model"] if name == "tokenizer.pt" else pick(rng, list(content["model"].values()))
        for _ in range(int(rng.integers(1, 4))):
            key = pick(rng, list(weights))
            pick(rng, (_reshape, _retype, _rename, _replace))(rng, weights, key)
        if rng.random() < 0.1:
            content = damaged_value(rng, content, junk=WRONG)
        try:
            torch.save(content, directory / name)
            accepted(lambda: _import(directory, name))
        finally:
            (directory / name).write_bytes(files[name])

    return check


def _import(directory: Path, name: str) -> Any:
    model = None if name == "tokenizer.pt" else directory / name
    return import_published(directory / "tokenizer.pt", model, frame_size=None if name == "genie_redux.pt" else 24)


def _import_hashes(directory: Path, files: dict[str, bytes]) -> dict[str, str]:
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return {name: weights_hash(_import(directory, name)) for name in files}


WRONG: tuple[Any, ...] = (None, 1, "text", [], {}, torch.zeros(0), torch.tensor(1.0), torch.zeros(1).expand(10**9))


def _reshape(rng: Generator, weights: dict[Any, Any], key: Any) -> None:
    tensor = weights[key]
    if isinstance(tensor, torch.Tensor):
        sizes = [int(rng.choice([0, 1, 2, 3, 1000])) if rng.random() < 0.4 else size for size in tensor.shape]
        if rng.random() < 0.2:
            sizes = [pick(rng, (10**5, 10**9, 2**40)) if rng.random() < 0.5 else size for size in tensor.shape]
        more = [1] * int(rng.random() < 0.1)
        if math.prod(sizes) < 2**62:  # PyTorch makes no others
            weights[key] = torch.zeros(1, dtype=tensor.dtype).expand(sizes + more)


def _retype(rng: Generator, weights: dict[Any, Any], key: Any) -> None:
    if isinstance(weights[key], torch.Tensor):
        types = (torch.float16, torch.int64, torch.bool, torch.complex64, torch.float64, torch.bfloat16)
        weights[key] = weights[key].to(pick(rng, types))
        if rng.random() < 0.3 and weights[key].is_floating_point():
            weights[key] = torch.full_like(weights[key], float("nan"))


def _rename(rng: Generator, weights: dict[Any, Any], key: Any) -> None:
    other = pick(
        rng, ("", "x", 1, None, (1, 2), "a\nb", str(key).replace("0", str(10**9)), str(key) + ".x", "9" * 5000)
    )
    weights[other] = weights.pop(key) if rng.random() < 0.7 else weights[key]


def _replace(rng: Generator, weights: dict[Any, Any], key: Any) -> None:
    weights[key] = pick(rng, WRONG)


def policies(directory: Path) -> Check:
    """Saved policies: `policy.json` and the weights."""
    torch.manual_seed(0)
    space = {"observation_space": gym.spaces.Box(0, 255, (36, 36, 6), np.uint8), "action_space": gym.spaces.Discrete(4)}
    small = AutoExploreModuleConfig(channels=(2, 2), lstm_size=4)
    made = [
        PPOModule(**space, model_config={"settings": ExplorerPPOSettings(hold=2, hidden=4, filters=((2, 8, 4),))}),
        AutoExploreModule(**space, model_config={"network": small}),
    ]
    kept = []
    for number, module in enumerate(made):
        save_policy(module, directory / str(number), {"games": ["Toy"]})
        kept.append((directory / str(number), load_policy(directory / str(number))))

    def check(rng: Generator) -> None:
        path, module = pick(rng, kept)
        file = path / pick(rng, (POLICY_FILE, POLICY_FILE, POLICY_WEIGHTS))
        whole = file.read_bytes()
        is_old = file.name == POLICY_FILE and rng.random() < 0.4
        try:
            damaged = _damaged_policy(rng, file.name, whole, is_old)
            file.write_bytes(damaged)
            is_old |= file.name == POLICY_FILE and b'"sha256"' not in damaged  # the hash itself is lost
            accepted(lambda: read_policy(path))
            if loaded := accepted(lambda: load_policy(path)):
                assert is_old or loaded[0].settings == module.settings, f"accepted other settings: {loaded[0].settings}"
                assert weights_hash(loaded[0]) == weights_hash(module), "accepted other weights"
                assert is_old or loaded[0].observation_space == module.observation_space
        finally:
            file.write_bytes(whole)

    return check


def _damaged_policy(rng: Generator, name: str, content: bytes, is_old: bool) -> bytes:
    if name == POLICY_WEIGHTS:
        return _damaged_safetensors(rng, content)
    values = json.loads(content)
    if is_old:  # without hashes, as it once was written
        del values["sha256"], values["weights_sha256"]
    return damaged_json(rng, values)
