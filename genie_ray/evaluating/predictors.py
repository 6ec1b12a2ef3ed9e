"""What is scored: a world model, its tokenizer or latent action model alone, or copying a frame; with one interface.

Windows longer than a model's clip are predicted by a sliding clip (world_model/rollout.py), frame after frame.

A GenieRedux is guided by latent actions. It is given those that its latent action model infers from the true frames of
the window, including the frames to be predicted, as published (GenieRedux, Kazemi et al., 2024, arXiv 2409.06445).

Axes: B batch, T frames, D width, H W C pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from genie_ray.base.precision import Precision, autocast
from genie_ray.base.seeding import seeded_generator
from genie_ray.base.session import RayConfig
from genie_ray.evaluating.networks import given_networks
from genie_ray.storage.checkpoints import load_as, read_config, read_description
from genie_ray.storage.paths import StoredPath
from world_model.checkpoint import WorldModel
from world_model.control import ActionLikelihoods, action_likelihoods
from world_model.genie import GenieRedux, GenieReduxConfig, GenieReduxG
from world_model.layers.patches import to_uint8
from world_model.maskgit import DecodingConfig
from world_model.rollout import Rollout

if TYPE_CHECKING:
    from genie_ray.evaluating.config import EvaluationConfig
    from genie_ray.replay.metadata import DatasetMetadata

COPY, TOKENIZER, LATENT_ACTIONS = "copy last frame", "tokenizer alone", "latent action model alone"


Checkpoints = StoredPath | Mapping[str, StoredPath]
"""A model's checkpoint, or one for each game."""


def paths_of(checkpoints: Checkpoints) -> list[StoredPath]:
    """All of a model's checkpoints."""
    return list(checkpoints.values()) if isinstance(checkpoints, Mapping) else [checkpoints]


def of_game(checkpoints: Checkpoints | None, game: str) -> StoredPath | None:
    """A model's checkpoint for a game."""
    return checkpoints[game] if isinstance(checkpoints, Mapping) else checkpoints


def resolved(checkpoints: Checkpoints) -> Checkpoints:
    """The same checkpoints, found from any working directory."""
    if isinstance(checkpoints, Mapping):
        return {game: path.resolve() for game, path in checkpoints.items()}
    return checkpoints.resolve()


def require_fit(models: Mapping[str, Checkpoints], metadata: DatasetMetadata, config: EvaluationConfig) -> None:
    """Requires that models can be scored on a test dataset.

    Raises:
        ValueError: one has no checkpoint for a game, or one that takes other frames, actions or fewer frames.
    """
    for label, checkpoints in models.items():
        if isinstance(checkpoints, Mapping) and (without := sorted(set(metadata.counts) - set(checkpoints))):
            raise ValueError(f"{label} has no model of {without[0]}, which the test dataset has")
        for checkpoint in paths_of(checkpoints):
            model = read_config(WorldModel, checkpoint)
            num_actions = model.dynamics.num_actions
            if isinstance(model, GenieReduxConfig):  # infers its own actions, from the whole window
                num_actions = None
            metadata.require_fit(frame_size=model.tokenizer.frame_size, num_actions=num_actions)
            config.require_horizon(model.dynamics.max_frames, str(checkpoint))


def tokenizer_rows(models: Mapping[str, Checkpoints]) -> dict[str, Checkpoints]:
    """Label → checkpoint of a row for each different tokenizer, told by all its weights, the decoder's included.

    The first model's has the label TOKENIZER; others are named after the first model that has them.
    """
    rows: dict[str, Checkpoints] = {}
    seen: set[tuple[str, ...]] = set()
    for label, paths in models.items():
        weights = tuple(read_description(path)["tokenizer_sha256"] for path in paths_of(paths))
        if weights not in seen:
            rows[f"{TOKENIZER}: {label}" if seen else TOKENIZER] = paths
            seen.add(weights)
    return rows


def latent_action_rows(models: Mapping[str, Checkpoints]) -> dict[str, Checkpoints]:
    """Label → checkpoint of a row for each model's latent action model alone; labels are as in `tokenizer_rows`."""
    having = {
        label: paths for label, paths in models.items() if read_description(paths_of(paths)[0])["kind"] == "genie_redux"
    }
    return {
        f"{LATENT_ACTIONS}: {label}" if number else LATENT_ACTIONS: paths
        for number, (label, paths) in enumerate(having.items())
    }


def is_reference(label: str) -> bool:
    """Whether a row is not a model's: copying, or a part alone."""
    return label == COPY or any(label == part or label.startswith(f"{part}: ") for part in (TOKENIZER, LATENT_ACTIONS))


class Guidance(NamedTuple):
    """The actions that a predictor is given for windows."""

    actions_BT: Tensor  # int64; for a GenieRedux, latent actions
    vectors_BTD: Tensor | None = None  # for a GenieRedux: the vectors before the codebook


class Predictor:
    """Copies the last given frame; subclasses do better.

    Args:
        given: how many frames of a window are given; the rest is predicted.
    """

    num_actions = 0  # to choose from; 0: it ignores actions

    def __init__(self, given: int) -> None:
        self.given = given
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def guidance(self, frames_BTHWC: Tensor, actions_BT: Tensor) -> Guidance:
        """The guidance for windows [B, T, H, W, C] with the real actions [B, T−1]."""
        return Guidance(actions_BT)

    def predict(self, frames_BTHWC: Tensor, actions_BT: Tensor, seeds: Sequence[int]) -> Tensor:
        """The predicted frames uint8 [B, T − given, H, W, C], on the CPU.

        Args:
            frames_BTHWC: whole windows; only the first `given` frames are looked at, except by the tokenizer alone.
            actions_BT: as in `guidance`.
            seeds: of each window's sampling.
        """
        return frames_BTHWC[:, self.given - 1 : self.given].expand_as(frames_BTHWC[:, self.given :])

    def likelihoods(self, frames_BTHWC: Tensor, actions_BT: Tensor) -> ActionLikelihoods | None:
        """Of the last frame under each possible last action, given the true past; None if actions are not real ones."""
        return None


class TokenizerAlone(Predictor):
    """Encodes and decodes the true frames: no dynamics can do better."""

    def __init__(self, given: int, model: WorldModel) -> None:
        super().__init__(given)
        self.tokenizer = model.tokenizer.to(self.device)

    def predict(self, frames_BTHWC: Tensor, actions_BT: Tensor, seeds: Sequence[int]) -> Tensor:
        """Beyond the longest clip, each further clip begins with the last half of the one before."""
        longest, total = self.tokenizer.config.max_frames, frames_BTHWC.shape[1]
        parts: list[Tensor] = []
        for end in [*range(min(longest, total), total, max(1, longest // 2)), total]:
            first, done = max(0, end - longest), sum(part.shape[1] for part in parts)
            clip_BTHWC = frames_BTHWC[:, first:end].to(self.device)
            decoded_BTHWC = self.tokenizer.decode(self.tokenizer.encode(clip_BTHWC))
            parts.append(decoded_BTHWC[:, done - first :].cpu())
        return torch.cat(parts, dim=1)[:, self.given :]


class LatentActionsAlone(Predictor):
    """Reconstructs each true frame from the true ones before it and the latent action between (Kazemi 2024, Tab. 2)."""

    def __init__(self, given: int, model: GenieRedux) -> None:
        super().__init__(given)
        self.latent_actions = model.latent_actions.to(self.device)

    @torch.no_grad()
    def predict(self, frames_BTHWC: Tensor, actions_BT: Tensor, seeds: Sequence[int]) -> Tensor:
        """Beyond the longest clip, each further clip begins with the last frame of the one before."""
        longest = self.latent_actions.config.max_frames
        parts = [
            to_uint8(self.latent_actions(clip_BTHWC.to(self.device)).reconstruction_BTHWC).cpu()
            for clip_BTHWC in overlapping(frames_BTHWC, longest)
        ]
        return torch.cat(parts, dim=1)[:, self.given - 1 :]


class ModelPredictor(Predictor):
    """Rolls out a world model."""

    def __init__(self, given: int, model: WorldModel, decoding: DecodingConfig, precision: Precision) -> None:
        super().__init__(given)
        self.model, self.decoding = model.to(self.device), decoding
        self.autocast = autocast(precision, self.device)
        self.num_actions = model.num_actions

    def guidance(self, frames_BTHWC: Tensor, actions_BT: Tensor) -> Guidance:
        if not isinstance(self.model, GenieRedux):
            return Guidance(actions_BT)
        return infer_actions(self.model, frames_BTHWC.to(self.device))

    def likelihoods(self, frames_BTHWC: Tensor, actions_BT: Tensor) -> ActionLikelihoods | None:
        if not isinstance(self.model, GenieReduxG) or frames_BTHWC.shape[1] > self.model.dynamics.config.max_frames:
            return None
        with self.autocast:
            found = action_likelihoods(self.model, frames_BTHWC.to(self.device), actions_BT.to(self.device))
        return ActionLikelihoods(found.nll_BA.cpu(), found.changed_B.cpu())

    def predict(self, frames_BTHWC: Tensor, actions_BT: Tensor, seeds: Sequence[int]) -> Tensor:
        prime_BTHWC, actions_BT = frames_BTHWC[:, : self.given].to(self.device), actions_BT.to(self.device)
        generators = [seeded_generator(self.device, seed) for seed in seeds]
        with self.autocast:
            if frames_BTHWC.shape[1] <= self.model.dynamics.config.max_frames:
                return self.model.rollout(prime_BTHWC, actions_BT, decoding=self.decoding, generator=generators).cpu()
            known = self.given - 1
            rollout = Rollout(
                self.model, prime_BTHWC, actions_BT[:, :known], decoding=self.decoding, generator=generators
            )
            frames = [rollout.step(actions_B).frames_BHWC.cpu() for actions_B in actions_BT[:, known:].unbind(dim=1)]
        return torch.stack(frames, dim=1)


def infer_actions(model: GenieRedux, frames_BTHWC: Tensor) -> Guidance:
    """The latent actions between frames [B, T−1], on the CPU; each clip starts at the last frame of the one before."""
    clips = overlapping(frames_BTHWC, model.latent_actions.config.max_frames)
    vectors_BTD = torch.cat([model.latent_actions.encode_to_vectors(clip) for clip in clips], dim=1)
    return Guidance(model.latent_actions.quantizer(vectors_BTD).tokens.cpu(), vectors_BTD.cpu())


def overlapping(frames_BTHWC: Tensor, longest: int) -> list[Tensor]:
    """Clips of at most `longest` frames, each from the last frame of the one before on: every transition in one."""
    return [frames_BTHWC[:, start : start + longest] for start in range(0, frames_BTHWC.shape[1] - 1, longest - 1)]


def load_predictor(label: str, checkpoint: StoredPath | None, config: EvaluationConfig) -> Predictor:
    """The predictor for a row of the table: `checkpoint` is a world model's, or None for COPY."""
    given = config.prime_frames
    if checkpoint is None:
        return Predictor(given)
    model = load_as(WorldModel, checkpoint)
    if is_reference(label) and label.startswith(LATENT_ACTIONS):
        assert isinstance(model, GenieRedux)
        return LatentActionsAlone(given, model)
    if is_reference(label):
        return TokenizerAlone(given, model)
    return ModelPredictor(given, model, config.decoding, config.precision)


def gpus_for(checkpoint: Checkpoints | None, config: EvaluationConfig, ray_config: RayConfig) -> int:
    """The GPUs that a row asks for: copying a frame needs one only for the user's networks."""
    return int(ray_config.use_gpu and (checkpoint is not None or bool(given_networks(config))))
