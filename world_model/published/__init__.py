"""Import of checkpoints that the released GenieRedux implementation wrote (.pt files).

The two implementations hold the same parameters under other names; the tables below say which is which. Entries
that no output depends on (the codebook's unused moving averages, the norm of a context that is never normalised) are
left out. Sizes are read from the tensors' shapes; what no shape shows can be passed in.

Axes: N tokens of a frame, T frames, D width, E width of the dynamics' stream, A actions, K codes, C dimensions of a
code, P values of a patch.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from world_model.checkpoint import load_weights
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieRedux, GenieReduxConfig, GenieReduxG, GenieReduxGConfig
from world_model.latent_actions import LatentActionConfig
from world_model.layers.checks import CHANNELS
from world_model.layers.plain_config import LONGEST
from world_model.layers.quantizer import QuantizerConfig
from world_model.published.file import read_published
from world_model.tokenizer import Tokenizer, TokenizerConfig

FRAME_SIZE, MAX_FRAMES = 64, 16  # of the published models; GenieRedux, Sec. 4
PUBLISHED_CHOICES: dict[str, Any] = {  # of `DynamicsConfig`, all but sizes, as in the published code
    "conditioning": "one_hot",
    "actions_at": "input",
    "alignment": "shifted",
    "masking": "clip",
    "head": "codes",
    "embedding_std": 1.0,
    "changed_weight": 0.0,
    "token_input_scale": 10.0,
    "tdce_weight": 3.0,
}
UNGUIDED_CHOICES = PUBLISHED_CHOICES | {"conditioning": "latent", "token_input_scale": 0.0, "tdce_weight": 0.0}
"""The same of GenieRedux, whose actions are latent."""

# Published name (a regular expression) → ours. One table per part; the caller handles the part's own prefix.
TRANSFORMER = {
    r"layers\.(\d+)\.0\.(spatial|temporal)_peg\.dsconv\.(\w+)": r"\2.\1.peg.conv.\3",
    r"layers\.(\d+)\.0\.(spatial|temporal)_attention\.norm\.gamma": r"\2.\1.attention.norm.weight",
    r"layers\.(\d+)\.0\.(spatial|temporal)_attention\.(to_q|to_kv|to_out)\.weight": r"\2.\1.attention.\3.weight",
    r"layers\.(\d+)\.0\.(spatial|temporal)_attention\.(q_scale|k_scale)": r"\2.\1.attention.\3",
    r"layers\.(\d+)\.0\.(spatial|temporal)_ff\.0\.(\w+)": r"\2.\1.feed_forward.norm.\3",
    r"layers\.(\d+)\.0\.(spatial|temporal)_ff\.1\.weight": r"\2.\1.feed_forward.to_value_and_gate.weight",
    r"layers\.(\d+)\.0\.(spatial|temporal)_ff\.4\.weight": r"\2.\1.feed_forward.to_out.weight",
    r"norm_out\.gamma": r"norm.weight",
}
POSITION_BIAS = {
    r"net\.0\.0\.(\w+)": r"mlp.0.\1",
    r"net\.1\.0\.(\w+)": r"mlp.2.\1",
    r"net\.2\.(\w+)": r"mlp.4.\1",
}


def _under(published: str, ours: str, table: Mapping[str, str]) -> dict[str, str]:
    """The table with prefixes added to both names."""
    return {rf"{published}\.{name}": rf"{ours}.{renamed}" for name, renamed in table.items()}


AUTOENCODER = {
    **_under("encoder", "encoder", TRANSFORMER),
    **_under("decoder", "decoder", TRANSFORMER),
    **_under("spatial_rel_pos_bias", "spatial_bias", POSITION_BIAS),
    r"to_patch_emb_first_frame\.1\.(\w+)": r"patch_embedding.first_frame.0.\1",
    r"to_patch_emb_first_frame\.2\.(\w+)": r"patch_embedding.first_frame.1.\1",
    r"to_patch_emb_first_frame\.3\.(\w+)": r"patch_embedding.first_frame.2.\1",
    r"to_patch_emb\.1\.(\w+)": r"patch_embedding.next_frames.0.\1",
    r"to_patch_emb\.2\.(\w+)": r"patch_embedding.next_frames.1.\1",
    r"to_patch_emb\.3\.(\w+)": r"patch_embedding.next_frames.2.\1",
    r"vq\.project_in\.(\w+)": r"quantizer.to_code.\1",
    r"vq\.project_out\.(\w+)": r"quantizer.from_code.\1",
    r"vq\._codebook\.embed": r"quantizer.codebook_KC",
    r"to_pixels_first_frame\.0\.(\w+)": r"pixel_head.first_frame.\1",
    r"to_pixels\.0\.(\w+)": r"pixel_head.next_frames.\1",
}
LATENT_ACTION_MODEL = {
    **AUTOENCODER,
    r"to_action_emb\.1\.(\w+)": r"to_action.0.\1",
    r"to_action_emb\.2\.(\w+)": r"to_action.1.\1",
}
DYNAMICS = {
    **_under(r"maskgit\.transformer", "transformer", TRANSFORMER),
    **_under(r"maskgit\.continuous_pos_bias", "spatial_bias", POSITION_BIAS),
    r"maskgit\.token_emb\.weight": r"token_embedding.weight",
    r"maskgit\.pos_emb\.weight": r"position_embedding.weight",
    r"maskgit\.to_logits\.(\w+)": r"to_logits.\1",
}
UNUSED = re.compile(
    r"vq\._codebook\.(initted|cluster_size|embed_avg)|.*context_norm\.(gamma|beta)|.*(attention\.norm|norm_out)\.beta"
)


@dataclass(frozen=True)
class Part:
    """The weights of one part of a model under our names, and the file they come from."""

    state: dict[str, Tensor]
    source: str

    def shape(self, name: str, axes: int) -> torch.Size:
        """Shape of a tensor; ValueError if there is none with that name and number of axes."""
        if name not in self.state:
            raise ValueError(f"{self.source} does not fit: it lacks {name}")
        shape = self.state[name].shape
        if len(shape) != axes:
            raise ValueError(f"{self.source} does not fit: {name} has shape {list(shape)}, allowed: {axes} axes")
        return shape

    def load_into(self, module: nn.Module) -> None:
        """Copies the weights; ValueError naming the first tensor that does not fit."""
        load_weights(module, self.state, source=self.source)


def import_published(
    tokenizer_pt: str | Path,
    model_pt: str | Path | None = None,
    *,
    frame_size: int | None = None,
    max_frames: int | None = None,
    token_input_scale: float | None = None,
) -> Tokenizer | GenieReduxG | GenieRedux:
    """Loads the weights of published .pt files into our model, in evaluation mode.

    Args:
        tokenizer_pt: the tokenizer's file.
        model_pt: file of the dynamics (and latent action model); None for a tokenizer alone.
        frame_size: pixels; None: from a latent action model's shapes, else the published 64.
        max_frames: longest clip; None: from the dynamics' shapes, else the published 16.
        token_input_scale: no shape shows it; None: as published, 10 for a GenieRedux-G and 0 for a GenieRedux.

    Raises:
        ValueError: a file is unreadable, holds anything but the tensors of this model, or does not fit the other file
            or the arguments.
    """
    try:
        return _import(tokenizer_pt, model_pt, frame_size, max_frames, token_input_scale)
    except (RuntimeError, MemoryError, OverflowError) as error:  # of PyTorch, for sizes that no model has
        files = " and ".join(str(path) for path in (tokenizer_pt, model_pt) if path)
        raise ValueError(f"{files}: no model has such sizes ({' '.join(str(error).split())[:LONGEST]})") from error


def _import(
    tokenizer_pt: str | Path,
    model_pt: str | Path | None,
    frame_size: int | None,
    max_frames: int | None,
    token_input_scale: float | None,
) -> Tokenizer | GenieReduxG | GenieRedux:
    tokenizer = _part(read_published(tokenizer_pt), AUTOENCODER, tokenizer_pt)
    if model_pt is None:
        alone = Tokenizer(_tokenizer_config(tokenizer, frame_size or FRAME_SIZE, max_frames or MAX_FRAMES))
        tokenizer.load_into(alone)
        return alone.eval()
    published = read_published(model_pt)
    unknown = sorted(map(str, published.keys() - {"dynamics", "latent_action_model"}))
    if unknown or "dynamics" not in published:
        given = ascii(", ".join(unknown))[1:-1][:LONGEST] or "nothing"
        raise ValueError(f"{model_pt} holds {given}, needed: dynamics, latent_action_model")
    dynamics = _part(published["dynamics"], DYNAMICS, model_pt)
    if "latent_action_model" not in published:
        guided = GenieReduxG(_guided_config(tokenizer, dynamics, frame_size, max_frames, token_input_scale))
        tokenizer.load_into(guided.tokenizer)
        dynamics.load_into(guided.dynamics)
        return guided.eval()
    latent = _part(published["latent_action_model"], LATENT_ACTION_MODEL, model_pt)
    unguided = GenieRedux(_unguided_config(tokenizer, dynamics, latent, frame_size, max_frames, token_input_scale))
    tokenizer.load_into(unguided.tokenizer)
    dynamics.load_into(unguided.dynamics)
    latent.load_into(unguided.latent_actions)
    return unguided.eval()


def _guided_config(
    tokenizer: Part,
    dynamics: Part,
    frame_size: int | None,
    max_frames: int | None,
    token_input_scale: float | None,
) -> GenieReduxGConfig:
    dim, width = dynamics.shape("token_embedding.weight", 2)[1], dynamics.shape("to_logits.weight", 2)[1]
    if width == 2 * dim:
        raise ValueError(f"{dynamics.source} takes actions as embeddings of width {dim}, which no published file holds")
    if width <= dim:
        raise ValueError(f"{dynamics.source} has neither actions in its stream nor a latent action model")
    tokenizer_config, sizes = _sizes(tokenizer, dynamics, frame_size or FRAME_SIZE, max_frames)
    return GenieReduxGConfig(
        tokenizer=tokenizer_config,
        dynamics=DynamicsConfig(**sizes, num_actions=width - dim, **_choices(PUBLISHED_CHOICES, token_input_scale)),
    )


def _unguided_config(
    tokenizer: Part,
    dynamics: Part,
    latent: Part,
    frame_size: int | None,
    max_frames: int | None,
    token_input_scale: float | None,
) -> GenieReduxConfig:
    latent_sizes = _autoencoder_sizes(latent)
    dim, inputs = latent.shape("to_action.0.weight", 2)
    if not dim:
        raise ValueError(f"{latent.source} does not fit: to_action.0.weight has shape {[dim, inputs]}")
    told = math.isqrt(inputs // dim) * latent_sizes["patch_size"]
    _agree("frame_size", frame_size, told, latent.source)
    tokenizer_config, sizes = _sizes(tokenizer, dynamics, told, max_frames)
    return GenieReduxConfig(
        tokenizer=tokenizer_config,
        dynamics=DynamicsConfig(**sizes, **_choices(UNGUIDED_CHOICES, token_input_scale)),
        latent_actions=LatentActionConfig(**latent_sizes, frame_size=told, max_frames=sizes["max_frames"]),
    )


def _choices(published: dict[str, Any], token_input_scale: float | None) -> dict[str, Any]:
    return published if token_input_scale is None else published | {"token_input_scale": token_input_scale}


def _sizes(
    tokenizer: Part, dynamics: Part, frame_size: int, max_frames: int | None
) -> tuple[TokenizerConfig, dict[str, Any]]:
    """The tokenizer's configuration, and the part of the dynamics' that the shapes show."""
    config = _tokenizer_config(tokenizer, frame_size, MAX_FRAMES)
    codes = dynamics.shape("to_logits.weight", 2)[0]
    if codes != config.quantizer.codes:
        raise ValueError(
            f"{dynamics.source} predicts {codes} codes, {tokenizer.source} has {config.quantizer.codes}: "
            "not the tokenizer that it was trained with"
        )
    positions, dim = dynamics.shape("position_embedding.weight", 2)
    frames, rest = divmod(positions, math.prod(config.grid))
    if rest:
        raise ValueError(
            f"{dynamics.source} has {positions} positions, which do not fit frames of {frame_size} pixels "
            f"({math.prod(config.grid)} tokens): give frame_size"
        )
    _agree("max_frames", max_frames, frames, dynamics.source)
    sizes = {"dim": dim, "max_frames": frames, **_transformer_sizes(dynamics, "transformer")}
    return replace(config, max_frames=frames), sizes


def _tokenizer_config(part: Part, frame_size: int, max_frames: int) -> TokenizerConfig:
    sizes = _autoencoder_sizes(part)
    return TokenizerConfig(
        **sizes, frame_size=frame_size, max_frames=max_frames, mean_frame=False, decoder_mean_frame=False
    )


def _autoencoder_sizes(part: Part) -> dict[str, Any]:
    dim, patch_values = part.shape("patch_embedding.first_frame.1.weight", 2)
    codes, code_dim = part.shape("quantizer.codebook_KC", 2)
    return {
        "dim": dim,
        "patch_size": math.isqrt(patch_values // CHANNELS),
        "quantizer": QuantizerConfig(kind="cosine", codes=codes, code_dim=code_dim, commitment=0.25),
        **_transformer_sizes(part, "encoder"),
    }


def _transformer_sizes(part: Part, stack: str) -> dict[str, int]:
    block = re.compile(rf"{stack}\.spatial\.(\d+)\.")
    return {
        "blocks": len({match[1] for name in part.state if (match := block.match(name))}),
        "heads": part.shape("spatial_bias.mlp.4.bias", 1)[0],
        "head_dim": part.shape(f"{stack}.spatial.0.attention.q_scale", 1)[0],
    }


def _agree(name: str, given: int | None, told: int, source: str) -> None:
    if given not in (None, told):
        raise ValueError(f"{name} is {given}, allowed: {told}, from the shapes in {source}")


def _part(published: Any, table: Mapping[str, str], source: str | Path) -> Part:
    """A part's weights, with the published names replaced by ours."""
    if not isinstance(published, dict):
        raise ValueError(f"{source} holds a {type(published).__name__} where the weights of a part should be")
    state = {}
    for given, tensor in published.items():
        name = str(given)
        if UNUSED.fullmatch(name):
            continue
        matches = [match.expand(ours) for theirs, ours in table.items() if (match := re.fullmatch(theirs, name))]
        if len(matches) != 1 or not isinstance(tensor, Tensor):
            raise ValueError(f"{source} holds {ascii(name)[1:-1][:LONGEST]}, which is not a parameter of this model")
        if not tensor.is_floating_point():
            raise ValueError(f"{source} does not fit: {name} is {tensor.dtype}, allowed: floating point")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():  # a few bytes, repeated
            raise ValueError(f"{source} does not fit: {name} has shape {list(tensor.shape)}, but not as many values")
        # The library that the published code uses has an axis for several codebooks; there is only one.
        state[matches[0]] = tensor.squeeze(0) if name == "vq._codebook.embed" else tensor
    return Part(state, str(source))
