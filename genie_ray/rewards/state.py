"""Builds judges from a config and a checkpoint, and saves and restores their state.

A judge's state is kept in a directory of the run, in separate files: weights and optimiser of what it learns (`rf.pt`,
`vae.pt`, `disagreement.pt`), the weights served last (`learning_progress.pt`) and the lagged copy of each version that
was served (`learning_progress-<version>.pt`), the places that play has shown (`novelty.pt`). Each file is written
atomically.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from genie_ray.base.files import write_atomically
from genie_ray.base.precision import means_bf16
from genie_ray.rewards.config import RewardConfig
from genie_ray.rewards.judges import (
    Judge,
    NoveltyJudge,
    ProgressJudge,
    UncertaintyJudge,
    WindowTokens,
    lagged_name,
)
from genie_ray.rewards.learned import CuriosityJudge, DisagreementJudge
from genie_ray.rewards.novelty import Novelty
from genie_ray.rewards.windows import WINDOW_FRAMES
from genie_ray.storage.checkpoints import load_as, read_config, read_description
from genie_ray.storage.paths import Location, StoredPath
from genie_ray.storage.whole import local_copy
from world_model.checkpoint import weights_hash
from world_model.genie import GenieReduxG, GenieReduxGConfig

FORMAT = 3


def build_judge(
    config: RewardConfig, checkpoint: Location, version: str, state: StoredPath | None, device: torch.device
) -> Judge:
    """Builds the judge for a config, with the state that an earlier one left.

    Args:
        config: which reward.
        checkpoint: a GenieRedux-G checkpoint.
        version: its weights' hash.
        state: directory of the earlier judge's state, if any.

    Raises:
        ValueError: the checkpoint or the state is unusable, or the checkpoint no longer has that version.
    """
    if config.kind in ("rf", "vae"):
        sizes: GenieReduxGConfig = read_config(GenieReduxG, checkpoint)
        judge: Judge = CuriosityJudge(
            config,
            frame_size=sizes.tokenizer.frame_size,
            num_actions=sizes.dynamics.num_actions,
            device=device,
            state=_load(state, config.kind),
        )
        if config.novelty == "none":
            return judge
        tokens = WindowTokens(_world_model(checkpoint, version, device).tokenizer, "fp32")
    else:
        judge = asking = _asking_judge(config, checkpoint, version, state, device)
        if config.novelty == "none":
            return judge
        tokens = asking.tokens
        if means_bf16(config.precision, device):  # places are counted by tokens of full precision
            tokens = WindowTokens(tokens.tokenizer, "fp32")
    novelty = Novelty(config.novelty_tolerance, lifelong=config.novelty == "lifelong")
    if (remembered := _load(state, "novelty")) is not None:
        novelty.set_state(remembered)
    return NoveltyJudge(judge, tokens, novelty)


def _asking_judge(
    config: RewardConfig, checkpoint: Location, version: str, state: StoredPath | None, device: torch.device
) -> UncertaintyJudge | ProgressJudge | DisagreementJudge:
    """A judge that queries the world model."""
    model = _world_model(checkpoint, version, device)
    if config.kind == "entropy":
        return UncertaintyJudge(model, config, version)
    if config.kind == "learning_progress":
        return _progress_judge(model, config, version, state)
    return DisagreementJudge(model, config, version, _load(state, config.kind))


def describe_checkpoint(checkpoint: Location) -> dict[str, Any]:
    """What a checkpoint can judge: frame_size, num_actions, action_names (None if unknown), version.

    Raises:
        ValueError: not a GenieRedux-G checkpoint, or its clips are shorter than a window.
    """
    config: GenieReduxGConfig = read_config(GenieReduxG, checkpoint)
    if config.dynamics.max_frames < WINDOW_FRAMES:
        raise ValueError(
            f"checkpoint {checkpoint} has max_frames {config.dynamics.max_frames}; allowed: {WINDOW_FRAMES} or more"
        )
    description = read_description(checkpoint)
    return {
        "frame_size": config.tokenizer.frame_size,
        "num_actions": config.dynamics.num_actions,
        "action_names": description["provenance"].get("action_names"),
        "version": description["weights_sha256"],
    }


def save_state(judge: Judge, directory: StoredPath) -> None:
    """Writes a judge's state.

    Raises:
        ValueError: weights that are not finite; they must not replace those that are.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name, state in judge.get_state().items():
        if not all(tensor.isfinite().all() for tensor in _tensors(state)):
            raise ValueError(f"{name} has weights that are not finite: they are not saved")
        write_atomically(directory / f"{name}.pt", partial(torch.save, {"format": FORMAT, "state": state}))


def _load(directory: StoredPath | None, name: str) -> dict[str, Any] | None:
    """A saved state, on the CPU; None if there is none."""
    path = None if directory is None else directory / f"{name}.pt"
    if path is None or not path.is_file():
        return None
    with local_copy(path) as file:
        document = torch.load(file, map_location="cpu", weights_only=True)
    if document["format"] != FORMAT:
        raise ValueError(f"{path} has format {document['format']}; allowed: {FORMAT}")
    return document["state"]


def _world_model(checkpoint: Location, version: str, device: torch.device) -> GenieReduxG:
    model = load_as(GenieReduxG, checkpoint, device)
    if (found := weights_hash(model)) != version:
        raise ValueError(f"checkpoint {checkpoint} was replaced while it was served: its hash is now {found[:12]}…")
    return model


def _progress_judge(model: GenieReduxG, config: RewardConfig, version: str, state: StoredPath | None) -> ProgressJudge:
    """A judge with the lagged copy that belongs to these weights.

    For the first weights, that is a copy of themselves; for new ones, the weights they replace. Weights that were
    served before keep theirs, so that they give the same rewards again.
    """
    lagged = copy.deepcopy(model)
    weights, latest = _load(state, lagged_name(version)), _load(state, "learning_progress")
    if weights is None and latest is not None:
        weights = latest["now"]
    if weights is not None:
        lagged.load_state_dict(weights)
    return ProgressJudge(model, lagged, config, version, weights_hash(lagged))


def _tensors(state: Any) -> Iterator[Tensor]:
    """All tensors in nested dicts."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from _tensors(value)
