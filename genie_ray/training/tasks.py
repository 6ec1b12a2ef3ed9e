"""What differs between the trainings of the world model's parts; what they share is in loop.py.

A task defines how its model is built, which batches it is trained on, how a batch becomes a loss, and which datasets do
not fit. Axes: B batch, T frames, H W C pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, Unpack

import torch
from torch import Tensor, nn

from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.loading.mixture import ReplayMix
from genie_ray.replay.loading.pictures import PictureLoader, iter_pictures, require_large_frames
from genie_ray.replay.loading.windows import WindowLoader, iter_windows
from genie_ray.storage import checkpoints
from genie_ray.training.batches import BatchOptions, Loader
from genie_ray.training.job import TrainingJob
from world_model import checkpoint
from world_model.control import action_likelihoods
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieRedux, GenieReduxConfig, GenieReduxG, GenieReduxGConfig
from world_model.maskgit import DecodingConfig
from world_model.tokenizer import Tokenizer, TokenizerConfig
from world_model.uncertainty import PRIME_FRAMES
from world_model.upscaler import Upscaler, UpscalerConfig

MEAN_FRAME_WINDOWS = 64
Replay = ReplayDataset | ReplayMix
VALIDATION_DECODING = DecodingConfig(steps=1, temperature=0.0, mode="autoregressive", frames_per_step=1)


class Output(Protocol):
    """The least that every model's training pass returns."""

    @property
    def loss(self) -> Tensor: ...

    @property
    def metrics(self) -> dict[str, Tensor]: ...


class Task(ABC):
    """Training on windows of replay; subclasses define the model and its loss."""

    scored_by: tuple[str, ...] = ("loss",)  # metrics of a validation; the first that it has decides which is best

    def __init__(self, job: TrainingJob) -> None:
        self.job = job

    @property
    def frames_per_example(self) -> int:
        """How many frames the model sees per example of a batch."""
        return self.job.config.window

    @abstractmethod
    def check(self, dataset: ReplayDataset) -> None:
        """Raises ValueError if model and dataset do not fit together."""

    @abstractmethod
    def build(self, replay: Replay) -> checkpoint.Model:
        """The model to train: new, or loaded from its checkpoint."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Mapping[str, Any], generator: torch.Generator) -> Output:
        """A training pass; `model` may be wrapped for data-parallel training."""

    def validation_metrics(self, model: checkpoint.Model, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Further metrics of a held-out batch, averaged over it."""
        return {}

    def score(self, validation: Mapping[str, float]) -> tuple[str, float]:
        """Name and value of the metric by which the best checkpoint is chosen; lower is better."""
        name = next(name for name in self.scored_by if name in validation)
        return name, validation[name]

    def batches(self, replay: Replay, **options: Unpack[BatchOptions]) -> Loader:
        """This rank's training batches."""
        config = self.job.config
        return WindowLoader(
            replay,
            split="train",
            length=config.window,
            stride=config.stride,
            seed=self.job.seed,
            shuffle_buffer=-(-config.shuffle_buffer // options["world_size"]),
            **options,
        )

    def validation_batches(self, replay: Replay, *, batch_size: int) -> Iterator[Mapping[str, Any]]:
        """Held-out batches, the same ones in the same order at every validation."""
        config = self.job.config
        return iter_windows(
            replay,
            split="validation",
            length=config.window,
            stride=config.window,
            batch_size=batch_size,
            limit=config.validation_windows,
        )

    def _check_window(self, max_frames: int) -> None:
        if self.job.config.window > max_frames:
            raise ValueError(
                f"window = {self.job.config.window}: the model takes at most {max_frames} frames (max_frames)"
            )


class TokenizerTask(Task):
    """A tokenizer, from scratch or from one that is trained further as a whole: its tokens change their meaning."""

    scored_by = ("reconstruction_mse",)

    def check(self, dataset: ReplayDataset) -> None:
        config = self._config()
        dataset.metadata.require_fit(frame_size=config.frame_size)
        self._check_window(config.max_frames)

    def build(self, replay: Replay) -> Tokenizer:
        config = self._config()
        tokenizer = Tokenizer(config)
        if self.job.tokenizer is not None:
            tokenizer.load_state_dict(checkpoints.load_tokenizer(self.job.tokenizer).state_dict())
        elif config.mean_frame:
            windows = iter_windows(
                replay,
                split="train",
                length=self.job.config.window,
                stride=self.job.config.window,
                batch_size=MEAN_FRAME_WINDOWS,
                limit=MEAN_FRAME_WINDOWS,
            )
            tokenizer.initialize_mean_frame(next(windows)["frames_BTHWC"])
        return tokenizer

    def loss(self, model: nn.Module, batch: Mapping[str, Any], generator: torch.Generator) -> Output:
        return model(batch["frames_BTHWC"])

    def _config(self) -> TokenizerConfig:
        if self.job.tokenizer is not None:
            return checkpoints.read_tokenizer_config(self.job.tokenizer)
        assert isinstance(self.job.model, TokenizerConfig)
        return self.job.model


class DecoderTask(TokenizerTask):
    """A trained tokenizer's decoder, tuned to other games; its tokens do not change."""

    def build(self, replay: Replay) -> Tokenizer:
        assert self.job.tokenizer is not None
        return checkpoints.load_tokenizer(self.job.tokenizer).for_decoder_tuning()


class DynamicsTask(Task):
    """GenieRedux-G: dynamics on a frozen tokenizer's tokens, or a whole world model whose dynamics are fine-tuned.

    If a tokenizer is given with the model, it takes the place of the model's own: the dynamics learn its tokens anew.
    """

    model_class: type[GenieReduxG] | type[GenieRedux] = GenieReduxG
    scored_by = ("prediction_mse", "loss")  # there is no prediction in windows of two frames

    def check(self, dataset: ReplayDataset) -> None:
        config = self._config()
        given, own = self.job.tokenizer, config.tokenizer
        if given is not None and checkpoints.read_config(Tokenizer, given) != own:
            raise ValueError(f"{given} is built otherwise than the tokenizer of {self.job.init}")
        num_actions = None if self.model_class is GenieRedux else config.dynamics.num_actions  # or it infers its own
        dataset.metadata.require_fit(frame_size=own.frame_size, num_actions=num_actions)
        self._check_window(config.dynamics.max_frames)

    def build(self, replay: Replay) -> checkpoint.WorldModel:
        model = self.model_class(self._config())
        if self.job.init is not None:
            model.load_state_dict(checkpoints.load_as(self.model_class, self.job.init).state_dict())
        if self.job.tokenizer is not None:
            model.tokenizer.load_state_dict(checkpoints.load_as(Tokenizer, self.job.tokenizer).state_dict())
        return model

    def loss(self, model: nn.Module, batch: Mapping[str, Any], generator: torch.Generator) -> Output:
        return model(batch["frames_BTHWC"], batch["actions_BT"][:, :-1], generator)

    @torch.no_grad()
    def validation_metrics(self, model: checkpoint.Model, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Squared error of the frames predicted from the first two, and how much the last frame depends on its action.

        Cheap: greedy, in one decoding step per frame. The keys of control are those of `world_model.control`.
        """
        assert isinstance(model, (GenieReduxG, GenieRedux))
        frames_BTHWC = batch["frames_BTHWC"]
        if frames_BTHWC.shape[1] <= PRIME_FRAMES:
            return {}
        predicted_BTHWC = model.rollout(
            frames_BTHWC[:, :PRIME_FRAMES], self._player_actions(model, batch), decoding=VALIDATION_DECODING
        )
        error = predicted_BTHWC.float() - frames_BTHWC[:, PRIME_FRAMES:].float()
        return {"prediction_mse": (error / 255).square().mean()} | self._control(model, batch)

    def _control(self, model: GenieReduxG | GenieRedux, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        if not isinstance(model, GenieReduxG):
            return {}
        actions_BT = batch["actions_BT"][:, :-1]
        return action_likelihoods(model, batch["frames_BTHWC"], actions_BT).control(actions_BT[:, -1])

    def _player_actions(self, model: GenieReduxG | GenieRedux, batch: Mapping[str, Any]) -> Tensor:
        return batch["actions_BT"][:, :-1]

    def _config(self) -> Any:
        """The whole model's configuration, of `model_class`'s config class."""
        if self.job.init is not None:
            config = checkpoints.read_config(self.model_class, self.job.init)
            return config if self.job.model is None else replace(config, dynamics=self.job.model)
        assert self.job.tokenizer is not None
        return self._fresh_config(checkpoints.read_config(Tokenizer, self.job.tokenizer))

    def _fresh_config(self, tokenizer: TokenizerConfig) -> Any:
        assert isinstance(self.job.model, DynamicsConfig)
        return GenieReduxGConfig(tokenizer=tokenizer, dynamics=self.job.model)


class GenieReduxTask(DynamicsTask):
    """GenieRedux: as GenieRedux-G, but conditioned on a latent action model trained with it; needs no actions."""

    model_class = GenieRedux

    def loss(self, model: nn.Module, batch: Mapping[str, Any], generator: torch.Generator) -> Output:
        return model(batch["frames_BTHWC"], generator)

    def _player_actions(self, model: GenieReduxG | GenieRedux, batch: Mapping[str, Any]) -> Tensor:
        assert isinstance(model, GenieRedux)
        return model.latent_actions.encode(batch["frames_BTHWC"])

    def _fresh_config(self, tokenizer: TokenizerConfig) -> Any:
        assert isinstance(self.job.model, DynamicsConfig)
        assert self.job.latent_actions is not None
        return GenieReduxConfig(tokenizer=tokenizer, dynamics=self.job.model, latent_actions=self.job.latent_actions)


class UpscalerTask(Task):
    """An upscaler from scratch. It is trained on single pictures, so the job's window and stride do not apply."""

    frames_per_example = 1

    def check(self, dataset: ReplayDataset) -> None:
        for name in ("compile", "checkpoint_activations"):
            if getattr(self.job.config, name):
                raise ValueError(f"{name} = True: must be false for an upscaler, which has no transformer")
        require_upscaler_fit(dataset, self._config())

    def build(self, replay: Replay) -> Upscaler:
        return Upscaler(self._config())

    def loss(self, model: nn.Module, batch: Mapping[str, Any], generator: torch.Generator) -> Output:
        return model(batch["frames_BHWC"], batch["large_BHWC"])

    def batches(self, replay: Replay, **options: Unpack[BatchOptions]) -> Loader:
        config = self.job.config
        return PictureLoader(
            replay,
            split="train",
            seed=self.job.seed,
            shuffle_buffer=-(-config.shuffle_buffer // options["world_size"]),
            **options,
        )

    def validation_batches(self, replay: Replay, *, batch_size: int) -> Iterator[Mapping[str, Any]]:
        return iter_pictures(replay, "validation", batch_size=batch_size, limit=self.job.config.validation_windows)

    def _config(self) -> UpscalerConfig:
        assert isinstance(self.job.model, UpscalerConfig)
        return self.job.model


def require_upscaler_fit(dataset: ReplayDataset, upscaler: UpscalerConfig) -> None:
    """Raises ValueError if a dataset has no large frames, or if its frame sizes do not fit the upscaler's."""
    layout = require_large_frames(dataset)
    dataset.metadata.require_fit(frame_size=upscaler.frame_size)
    if layout.size != upscaler.large_size:
        raise ValueError(
            f"the dataset has large frames of {layout.size} pixels, but the upscaler makes {upscaler.large_size}"
        )


TASKS: dict[str, type[Task]] = {
    "tokenizer": TokenizerTask,
    "decoder": DecoderTask,
    "dynamics": DynamicsTask,
    "genie_redux": GenieReduxTask,
    "upscaler": UpscalerTask,
}
