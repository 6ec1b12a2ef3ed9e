"""A world model as ONNX graphs, for players without PyTorch: `encode`, `dynamics`, `decode`, and `player.json`.

All graphs take a whole clip, as long as the model's longest, so that every shape is fixed. Nothing at a frame depends
on later ones, so those that are not there yet may hold anything. Each graph is run by onnxruntime beside PyTorch before
it is in its place. `player.json` says how they are put together.

Axes: T frames of a clip, H W pixels or token grid, C colour channels, N = H·W tokens of a frame, K codes. A batch is 1.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from genie_ray.envs.world_model_games import INTERACTIVE
from world_model import checkpoint
from world_model.genie import GenieReduxG
from world_model.layers.patches import from_patches

NEEDS_PACKAGES = "ONNX needs onnx, onnxruntime and onnxscript: pip install 'genie-ray[onnx]'"
PLAYER = "player.json"
MOST_APART = 1e-4  # of logits and pixels in [0, 1]
TOKENS_APART = 1 / 500  # share of encoded tokens: a value at a boundary between two codes may be rounded either way
HOW = (
    "encode: frames uint8 [1, T, H, W, 3] to tokens int64 [1, T, h, w]. Given frames come first; the others may hold "
    "anything.",
    "dynamics: logits [1, h * w, codes] of the tokens of one frame, `frame` (counted from 0, at least 1). Tokens of "
    "frames before it are known, unknown ones of it are mask_token. actions[t] leads from frame t to t + 1.",
    "To predict a frame, all its tokens begin as mask_token. In step s = 1 … S, each masked token takes its likeliest "
    "code; then the floor(cos(pi / 2 * s / S) * h * w) least probable of those just taken are masked again.",
    "decode: the pixels [1, H, W, 3] in [0, 1] of one frame, from the tokens of it and of those before it.",
    "When all T frames are known, the last T / 2 are encoded as the first ones of a new clip, with their actions.",
)


class _Encode(nn.Module):
    def __init__(self, model: GenieReduxG) -> None:
        super().__init__()
        self.tokenizer = model.tokenizer

    def forward(self, frames: Tensor) -> Tensor:
        return self.tokenizer.encode(frames)


class _Dynamics(nn.Module):
    def __init__(self, model: GenieReduxG) -> None:
        super().__init__()
        self.tokenizer, self.dynamics = model.tokenizer, model.dynamics

    def forward(self, tokens: Tensor, actions: Tensor, frame: Tensor) -> Tensor:
        """Logits [1, N, K] of the tokens of one frame, int64 [1]."""
        features_BTHWE = self.dynamics.features(tokens, actions, self.tokenizer.token_vectors())
        logits_B1HWK = self.dynamics.to_logits(features_BTHWE.index_select(1, frame - 1))
        return logits_B1HWK.flatten(1, 3)


class _Decode(nn.Module):
    def __init__(self, model: GenieReduxG) -> None:
        super().__init__()
        self.tokenizer = model.tokenizer

    def forward(self, tokens: Tensor, frame: Tensor) -> Tensor:
        """Pixels [1, H, W, C] of one frame, int64 [1]."""
        vectors_BTHWD = F.embedding(tokens, self.tokenizer.token_vectors())
        patches_BTHWP = self.tokenizer.decode_vectors(vectors_BTHWD, self.tokenizer.spatial_bias())
        return from_patches(patches_BTHWP.index_select(1, frame), self.tokenizer.config.patch_size)[:, 0].clamp(0, 1)


def export_onnx(directory: Path, output: Path) -> dict[str, Any]:
    """Writes a checkpoint's graphs and `player.json` to a new directory; returns what `player.json` says.

    Raises:
        ValueError: no GenieRedux-G, the directory is there already, missing packages, or a graph that differs from
            PyTorch.
    """
    if output.exists():
        raise ValueError(f"{output} is there already: give a new directory")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(NEEDS_PACKAGES) from error
    description = checkpoint.require_kind(GenieReduxG, directory)
    model = checkpoint.load_as(GenieReduxG, directory).requires_grad_(False)
    clips = [_clip(model, seed) for seed in range(3)]
    begun = output.with_name(f".{output.name}.writing")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    try:
        graphs = {
            "dynamics": _graph(
                begun / "dynamics.onnx", _Dynamics(model), ["tokens", "actions", "frame"], "logits", clips
            ),
            "encode": _graph(begun / "encode.onnx", _Encode(model), ["frames"], "tokens", clips),
            "decode": _graph(begun / "decode.onnx", _Decode(model), ["known", "frame"], "pixels", clips),
        }
        document = {
            "model": {"kind": description["kind"], "weights_sha256": description["weights_sha256"]},
            "frame_size": model.tokenizer.config.frame_size,
            "frames": model.dynamics.config.max_frames,
            "grid": list(model.tokenizer.config.grid),
            "codes": model.dynamics.codes,
            "mask_token": model.dynamics.mask_token,
            "num_actions": model.num_actions,
            "decoding_steps": INTERACTIVE.steps,
            "graphs": graphs,
            "how": list(HOW),
        }
        (begun / PLAYER).write_text(json.dumps(document, indent=1) + "\n")
        begun.rename(output)
    finally:
        shutil.rmtree(begun, ignore_errors=True)
    return document


def _clip(model: GenieReduxG, seed: int) -> dict[str, Tensor]:
    """What the graphs take: frames that the tokenizer can show, and a clip that is half decoded."""
    generator = torch.Generator().manual_seed(seed)
    frames, grid = model.dynamics.config.max_frames, model.tokenizer.config.grid

    def drawn(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    known = drawn(model.dynamics.codes, 1, frames, *grid)
    frame = (1 + seed * (frames - 2) // 2) if frames > 2 else 1  # the second, one in the middle, the last
    tokens = known.clone()
    tokens[:, frame + 1 :] = model.dynamics.mask_token
    tokens[:, frame][drawn(2, 1, *grid).bool()] = model.dynamics.mask_token
    return {
        "frames": model.tokenizer.decode(known),
        "known": known,
        "tokens": tokens,
        "actions": drawn(model.num_actions, 1, frames - 1),
        "frame": torch.tensor([frame]),
    }


def _graph(
    path: Path, module: nn.Module, inputs: list[str], output: str, clips: list[dict[str, Tensor]]
) -> dict[str, Any]:
    """Writes a graph and compares it with PyTorch; returns its part of `player.json`."""
    names = ["tokens" if name == "known" else name for name in inputs]
    module.eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # on torchvision
        arguments = tuple(clips[0][name] for name in inputs)
        program = torch.onnx.export(
            module, arguments, dynamo=True, input_names=names, output_names=[output], verbose=False
        )
    assert program is not None
    program.save(path)
    apart = _compare(path, module, inputs, names, clips)
    return {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "inputs": {name: list(clips[0][given].shape) for name, given in zip(names, inputs, strict=True)},
        "output": output,
        "apart": apart,
    }


def _compare(
    path: Path, module: nn.Module, inputs: list[str], names: list[str], clips: list[dict[str, Tensor]]
) -> float:
    """How far onnxruntime is from PyTorch: the largest difference, or the share of other tokens.

    Raises:
        ValueError: too far.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    apart = 0.0
    for clip in clips:
        feed = {name: clip[given].numpy() for name, given in zip(names, inputs, strict=True)}
        found: NDArray[Any] = session.run(None, feed)[0]
        with torch.no_grad():
            expected = module(*(clip[given] for given in inputs)).numpy()
        if expected.dtype.kind == "i":
            difference, allowed = float((found != expected).mean()), TOKENS_APART
        else:
            difference, allowed = float(np.abs(found - expected).max()), MOST_APART
        if found.shape != expected.shape or not difference <= allowed:
            raise ValueError(f"{path.name} differs from PyTorch by {difference:.2g}: at most {allowed:g} is allowed")
        apart = max(apart, difference)
    return apart
