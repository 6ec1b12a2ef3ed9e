"""Import of checkpoints that the released GenieRedux implementation wrote (.pt files).

The two implementations hold the same parameters under other names; the tables below say which is which. Entries
that no output depends on (the codebook's unused moving averages, the norm of a context that is never normed) are
left out.
"""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from world_model.checkpoint import load_weights
from world_model.genie import GenieRedux, GenieReduxConfig, GenieReduxG, GenieReduxGConfig
from world_model.tokenizer import Tokenizer, TokenizerConfig

# Published name (a regular expression) → ours. One table per part; the part's own prefix is dealt with by the caller.
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
    """The table with a prefix before both names."""
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


def import_published(
    tokenizer_pt: str | Path,
    model_pt: str | Path | None,
    config: TokenizerConfig | GenieReduxGConfig | GenieReduxConfig,
) -> Tokenizer | GenieReduxG | GenieRedux:
    """Our model with the weights of published .pt files, in evaluation mode.

    Args:
        tokenizer_pt: the tokenizer's file.
        model_pt: file of the dynamics (and latent action model); None for a tokenizer alone.
        config: sizes of the files' models; its class tells which model is wanted.

    Raises:
        ValueError: a file is unreadable, holds an unknown entry, or does not fit the config.
    """
    tokenizer_state = _rename(_read(tokenizer_pt), AUTOENCODER, tokenizer_pt)
    if isinstance(config, TokenizerConfig):
        tokenizer = Tokenizer(config)
        load_weights(tokenizer, tokenizer_state, source=str(tokenizer_pt))
        return tokenizer.eval()
    if model_pt is None:
        raise ValueError("no file of the dynamics was given, allowed with a TokenizerConfig only")
    model = GenieReduxG(config) if isinstance(config, GenieReduxGConfig) else GenieRedux(config)
    load_weights(model.tokenizer, tokenizer_state, source=str(tokenizer_pt))
    parts: list[tuple[nn.Module, str, Mapping[str, str]]] = [(model.dynamics, "dynamics", DYNAMICS)]
    if isinstance(model, GenieRedux):
        parts.append((model.latent_actions, "latent_action_model", LATENT_ACTION_MODEL))
    for part, name, table in parts:
        load_weights(part, _rename(_read(model_pt).get(name, {}), table, model_pt), source=str(model_pt))
    return model.eval()


def _read(path: str | Path) -> dict[str, Any]:
    """The weights of a published file; nothing in it is executed."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)["model"]
    except (OSError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is no published checkpoint: {type(error).__name__}") from error


def _rename(published: Mapping[str, Tensor], table: Mapping[str, str], source: str | Path) -> dict[str, Tensor]:
    """Published names → ours."""
    renamed = {}
    for name, tensor in published.items():
        if UNUSED.fullmatch(name):
            continue
        matches = [match.expand(ours) for theirs, ours in table.items() if (match := re.fullmatch(theirs, name))]
        if len(matches) != 1:
            raise ValueError(f"{source} holds {name}, which is no parameter of this model")
        # The library that the published code uses keeps several codebooks, of which there is one.
        renamed[matches[0]] = tensor.squeeze(0) if name == "vq._codebook.embed" else tensor
    return renamed
