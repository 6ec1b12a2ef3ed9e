"""Which windows are predicted, and how, to score a world model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from genie_ray.base.precision import Precision
from world_model.maskgit import DecodingConfig


@dataclass(frozen=True, kw_only=True)
class InverseDynamicsConfig:
    """How a classifier that names the action between two frames is trained. All choices are ours."""

    width: int = 32  # channels of the first convolution; the other two have twice as many
    hidden: int = 128
    updates: int = 1_000  # 0: no classifier
    batch_size: int = 64  # pairs of frames
    learning_rate: float = 1e-3  # at its peak, after a tenth of the updates; then down to 0
    weight_decay: float = 1e-2
    validation_pairs: int = 3_000  # at most, spread evenly over the held-out episodes

    def __post_init__(self) -> None:
        for name in ("width", "hidden", "batch_size", "validation_pairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.updates < 0:
            raise ValueError(f"updates = {self.updates}: must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Which windows are predicted, and how. Defaults: the paper's protocol (section 5)."""

    prime_frames: int = 2  # given
    predicted_frames: int = 10
    stride: int = 20  # frames between the starts of neighbouring windows
    windows_per_game: int = 0  # at most, spread evenly over the dataset; 0: all
    batch_size: int = 32
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
    precision: Precision = "auto"  # of world models; the tokenizer alone is scored in fp32
    delta_psnr_frame: int = 4  # the predicted frame at which ΔPSNR is reported
    random_actions: Literal["all", "last"] = "all"  # "all" that lead to predicted frames: Genie; "last": published code
    # Rows and columns at the upper left that are black wherever frames are compared. [13, 26]: CoinRun's velocity map,
    # at 64 pixels (Kazemi et al. 2024, App. A).
    black_corner: tuple[int, int] = (0, 0)
    ceiling: bool = True  # let the emulator take the random actions, too: the ΔPSNR of a perfect model
    inverse_dynamics: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)  # needs training data
    film_strips: int = 3  # windows per game whose frames are kept for the report
    pictures: int = 50_000  # to score an upscaler on: at most, spread evenly over the dataset; paper, supplement
    inception_weights: str | None = None  # TorchScript file (see networks.py); without it there is no FID
    lpips_weights: str | None = None  # the same for LPIPS
    video_features: str | None = None  # the same for FVD
    published_figures: str | None = None  # CSV file of a paper's figures, shown below ours
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("prime_frames", "predicted_frames", "stride", "batch_size", "pictures"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not 1 <= self.delta_psnr_frame <= self.predicted_frames:
            raise ValueError(f"delta_psnr_frame = {self.delta_psnr_frame}: must be in [1, {self.predicted_frames}]")
        if min(self.black_corner) < 0:
            raise ValueError(f"black_corner = {list(self.black_corner)}: must be two numbers of 0 or more")
        for name in ("windows_per_game", "film_strips"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be 0 or more")

    @property
    def window(self) -> int:
        """Frames of a window, given and predicted."""
        return self.prime_frames + self.predicted_frames

    def require_horizon(self, longest: int, model: str, prefix: str = "evaluation.") -> None:
        """Raises ValueError unless a model whose clips have `longest` frames can predict windows of this length.

        Windows beyond a clip are decoded frame by frame in a sliding clip, and in no other way.

        Args:
            model: what to call it in the message.
            prefix: of the settings' names in the message.
        """
        if self.window <= longest:
            return
        if self.decoding.mode != "autoregressive" or self.decoding.frames_per_step != 1:
            raise ValueError(
                f"{prefix}prime_frames + predicted_frames is {self.window}: must be at most {longest}, the clip of "
                f"{model}, unless {prefix}decoding.mode is autoregressive and {prefix}decoding.frames_per_step is 1"
            )
        if self.prime_frames >= longest:
            raise ValueError(
                f"{prefix}prime_frames is {self.prime_frames}: must be at most {longest - 1}, as {model} has clips of "
                f"{longest} frames"
            )
