"""What differs between the trainings of the world model's parts; what they share is in train_loop.py.

A task knows how its model is built, which batches it learns from, how a batch becomes a loss, and what would make it
fail. Axes: B batch, T frames, H W C pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from genie_ray.replay.dataset import ReplayDataset
from genie_ray.replay.windows import WindowLoader, iter_windows
from genie_ray.training import TrainingJob, require_fit
from world_model import checkpoint
from world_model.dynamics import DynamicsConfig
from world_model.genie import GenieReduxG, GenieReduxGConfig
from world_model.tokenizer import Tokenizer, TokenizerConfig

MEAN_FRAME_WINDOWS = 64


class Output(Protocol):
    """What every model's training pass returns at least."""

    @property
    def loss(self) -> Tensor: ...

    @property
    def metrics(self) -> dict[str, Tensor]: ...


class Loader(Protocol):
    """An endless source of batches whose position can be saved."""

    def __iter__(self) -> Iterator[Mapping[str, Any]]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Task:
    """Training on windows of replay; a subclass says what model learns from them, and how."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job

    def check(self, dataset: ReplayDataset) -> None:
        """Raises ValueError where model and dataset do not fit each other."""
        raise NotImplementedError

    def build(self, dataset: ReplayDataset) -> checkpoint.Model:
        """The model to train: fresh, or as its checkpoint left it."""
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Mapping[str, Any], generator: torch.Generator) -> Output:
        """A training pass; `model` may be wrapped for data-parallel training."""
        raise NotImplementedError

    def batches(self, dataset: ReplayDataset, *, batch_size: int, rank: int, world_size: int) -> Loader:
        """This rank's training batches."""
        config = self.job.config
        return WindowLoader(
            dataset,
            split="train",
            length=config.window,
            stride=config.stride,
            batch_size=batch_size,
            seed=self.job.seed,
            rank=rank,
            world_size=world_size,
            shuffle_buffer=config.shuffle_buffer,
        )

    def validation_batches(self, dataset: ReplayDataset, *, batch_size: int) -> Iterator[Mapping[str, Any]]:
        """Held-out batches, the same ones in the same order at every validation."""
        config = self.job.config
        return iter_windows(
            dataset,
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
    """A tokenizer from scratch."""

    def check(self, dataset: ReplayDataset) -> None:
        config = self._config()
        require_fit(dataset.metadata, frame_size=config.frame_size)
        self._check_window(config.max_frames)

    def build(self, dataset: ReplayDataset) -> Tokenizer:
        config = self._config()
        tokenizer = Tokenizer(config)
        if config.mean_frame:
            windows = iter_windows(
                dataset,
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
        assert isinstance(self.job.model, TokenizerConfig)
        return self.job.model


class DynamicsTask(Task):
    """GenieRedux-G: dynamics on a frozen tokenizer's tokens, or a whole world model whose dynamics are fine-tuned."""

    def check(self, dataset: ReplayDataset) -> None:
        config = self._config()
        require_fit(dataset.metadata, frame_size=config.tokenizer.frame_size, num_actions=config.dynamics.num_actions)
        self._check_window(config.dynamics.max_frames)

    def build(self, dataset: ReplayDataset) -> GenieReduxG:
        if self.job.init is not None:
            return checkpoint.load_as(GenieReduxG, self.job.init)
        assert self.job.tokenizer is not None
        model = GenieReduxG(self._config())
        model.tokenizer.load_state_dict(checkpoint.load_as(Tokenizer, self.job.tokenizer).state_dict())
        return model

    def loss(self, model: nn.Module, batch: Mapping[str, Any], generator: torch.Generator) -> Output:
        return model(batch["frames_BTHWC"], batch["actions_BT"][:, :-1], generator)

    def _config(self) -> GenieReduxGConfig:
        if self.job.init is not None:
            return checkpoint.read_config(GenieReduxG, self.job.init)
        assert self.job.tokenizer is not None
        assert isinstance(self.job.model, DynamicsConfig)
        return GenieReduxGConfig(
            tokenizer=checkpoint.read_config(Tokenizer, self.job.tokenizer), dynamics=self.job.model
        )


TASKS: dict[str, type[Task]] = {"tokenizer": TokenizerTask, "dynamics": DynamicsTask}
