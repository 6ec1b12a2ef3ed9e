"""A world model as ONNX graphs, for players without PyTorch, and `player.json`, which says how to put them together.

Each graph is run by onnxruntime beside PyTorch's own model before it is in its place. Axes as in onnx_graphs.py.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genie_ray.envs.world_model_games import INTERACTIVE
from genie_ray.sharing.onnx_graphs import Decode, DecodeStep, Dynamics, DynamicsStep, Encode, Past, no_past
from world_model import checkpoint
from world_model.genie import GenieReduxG
from world_model.layers.transformer import SpatioTemporalTransformer

NEEDS_PACKAGES = "ONNX needs onnx, onnxruntime and onnxscript: pip install 'genie-ray[onnx]'"
PLAYER = "player.json"
MOST_APART = 1e-4  # of logits and pixels in [0, 1]
TOKENS_APART = 1 / 500  # share of encoded tokens: a value at a boundary between two codes may be rounded either way
PAST = Past._fields
Clip = Mapping[str, Tensor]
Run = Callable[..., list[NDArray[Any]]]

HOW = {
    "encode": "frames uint8 [1, T, H, W, 3] to tokens int64 [1, T, h, w]. Given frames come first; the others may hold "
    "anything.",
    "predict": "All tokens of a frame begin as mask_token. In step s = 1 … S, each masked token takes its likeliest "
    "code; then the floor(cos(pi / 2 * s / S) * h * w) least probable of those just taken are masked again.",
    "slide": "When all T frames are known, the last T / 2 are encoded as the first ones of a new clip, with their "
    "actions.",
}
HOW_STEPS = HOW | {
    "dynamics": "logits [1, h * w, codes] of one frame from its tokens so far, the action that led to it (any for "
    "frame 0), its place `frame` in the clip, counted from 0, and the past. Run it once more when all tokens of a "
    "frame are known, and for each given frame: what it leaves then becomes past.",
    "decode": "pixels [1, H, W, 3] in [0, 1] of one frame from its tokens, and the past; run it for every frame, the "
    "given ones too.",
    "past": "At first zeros. After a frame: inputs = the second of the two before, then inputs_left; "
    "keys[:, :, :, frame] = keys_left, and values alike. dynamics and decode each have their own.",
}
HOW_CLIPS = HOW | {
    "dynamics": "logits [1, h * w, codes] of the tokens of one frame, `frame` (counted from 0, at least 1). Tokens of "
    "frames before it are known, unknown ones of it are mask_token. actions[t] leads from frame t to t + 1.",
    "decode": "pixels [1, H, W, 3] in [0, 1] of one frame, from the tokens of it and of those before it.",
}


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
    in_steps = model.dynamics.config.alignment == "aligned"
    begun = output.with_name(f".{output.name}.writing")
    shutil.rmtree(begun, ignore_errors=True)
    begun.mkdir(parents=True)
    try:
        document = {
            "model": {"kind": description["kind"], "weights_sha256": description["weights_sha256"]},
            "frame_size": model.tokenizer.config.frame_size,
            "frames": model.dynamics.config.max_frames,
            "grid": list(model.tokenizer.config.grid),
            "codes": model.dynamics.codes,
            "mask_token": model.dynamics.mask_token,
            "num_actions": model.num_actions,
            "decoding_steps": INTERACTIVE.steps,
            "in_steps": in_steps,
            "graphs": _write_graphs(begun, model, in_steps),
            "how": HOW_STEPS if in_steps else HOW_CLIPS,
        }
        (begun / PLAYER).write_text(json.dumps(document, indent=1) + "\n")
        begun.rename(output)
    finally:
        shutil.rmtree(begun, ignore_errors=True)
    return document


def _write_graphs(directory: Path, model: GenieReduxG, in_steps: bool) -> dict[str, Any]:
    """Writes and checks all graphs; returns their parts of `player.json`.

    Raises:
        ValueError: one differs from PyTorch.
    """
    clips = [_clip(model, share) for share in (0.0, 0.5, 1.0)]
    whole = {"encode": Encode(model), "dynamics": Dynamics(model), "decode": Decode(model)}
    takes = {"encode": ["frames"], "dynamics": ["tokens", "actions", "frame"], "decode": ["known", "frame"]}
    parts = {}
    for name in ("dynamics", "decode", "encode"):
        path = directory / f"{name}.onnx"
        if in_steps and name != "encode":
            stack = model.dynamics.transformer if name == "dynamics" else model.tokenizer.decoder
            module = (DynamicsStep if name == "dynamics" else DecodeStep)(model)
            tokens = "tokens" if name == "dynamics" else "known"
            past = _no_past(model, stack)
            given = {
                "tokens": clips[0]["known"][:, :1],
                "action": clips[0]["actions"][0, :1],
                "frame": clips[0]["frame"],
            }
            if name == "decode":
                del given["action"]
            inputs = given | dict(zip(PAST, past, strict=True))
            run = _export(path, module, inputs, [_output(name), *(f"{part}_left" for part in PAST)])
            found = [_play(run, clip, tokens, _no_past(model, stack), "action" in given) for clip in clips]
        else:
            inputs = {key.replace("known", "tokens"): clips[0][key] for key in takes[name]}
            run = _export(path, whole[name], inputs, [_output(name)])
            found = [run(*(clip[key].numpy() for key in takes[name]))[0] for clip in clips]
        with torch.no_grad():
            expected = [whole[name](*(clip[key] for key in takes[name])).numpy() for clip in clips]
        parts[name] = {
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "inputs": {key: list(value.shape) for key, value in inputs.items()},
            "apart": max(_apart(path.name, *pair) for pair in zip(found, expected, strict=True)),
        }
    return parts


def _output(name: str) -> str:
    return {"encode": "tokens", "dynamics": "logits", "decode": "pixels"}[name]


def _no_past(model: GenieReduxG, stack: SpatioTemporalTransformer) -> Past:
    return no_past(stack, model.tokenizer.config.grid, model.dynamics.config.max_frames)


def _clip(model: GenieReduxG, share: float) -> dict[str, Tensor]:
    """What the graphs take: frames that the tokenizer can show, and a clip that is decoded up to half of one frame.

    Args:
        share: where that frame is, from 0, the second one, to 1, the last.
    """
    generator = torch.Generator().manual_seed(0)
    frames, grid = model.dynamics.config.max_frames, model.tokenizer.config.grid

    def drawn(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    known = drawn(model.dynamics.codes, 1, frames, *grid)
    frame = 1 + round(share * (frames - 2))
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


def _export(path: Path, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Run:
    """Writes a graph; returns what runs it."""
    import onnxruntime

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # on torchvision
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
        )
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda *values: session.run(None, dict(zip(inputs, values, strict=True)))


def _play(run: Run, clip: Clip, tokens: str, past: Past, with_action: bool) -> NDArray[Any]:
    """The first output for the frame that a clip asks for, after all frames before it."""
    inputs, keys, values = (part.numpy() for part in past)
    for frame in range(int(clip["frame"]) + 1):
        given = [clip[tokens][:, frame : frame + 1].numpy()]
        if with_action:
            given.append(clip["actions"][0, max(0, frame - 1)][None].numpy())
        found, new, key, value = run(*given, np.array([frame]), inputs, keys, values)
        inputs = np.concatenate([inputs[:, 1:], new], axis=1)
        keys[:, :, :, frame], values[:, :, :, frame] = key[:, :, :, 0], value[:, :, :, 0]
    return found


def _apart(name: str, found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference, or the share of other tokens.

    Raises:
        ValueError: it is too large.
    """
    if expected.dtype.kind == "i":
        apart, allowed = float((found != expected).mean()), TOKENS_APART
    else:
        apart, allowed = float(np.abs(found - expected).max()), MOST_APART
    if found.shape != expected.shape or not apart <= allowed:
        raise ValueError(f"{name} differs from PyTorch by {apart:.2g}: at most {allowed:g} is allowed")
    return apart
