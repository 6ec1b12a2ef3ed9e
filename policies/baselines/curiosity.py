"""Curiosity by prediction error in a feature space: the explorers that the paper compares with.

Reward of the transition from x_{t−1} to x_t: ‖f(φ(x_{t−1}), a_{t−1}) − φ(x_t)‖² / F, where f learns online from
incoming transitions (Burda et al. 2018, 1808.04355; baselines of Savov et al. 2025, Tab. 6). The features φ are

    rf   those of a convolutional network with fixed random weights
    vae  the means of a variational autoencoder that learns from the same frames

Sizes are those of Burda et al.'s implementation; instead of whitening pixels by the statistics of random play, they are
scaled to [−½, ½]. The bounds on gradients and log variances are ours: one odd frame must not ruin unattended learning.

Axis letters: M transitions, F features, A actions, H W C frame.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from policies.baselines.config import CuriosityConfig
from policies.baselines.online import OnlineLearner

STRIDE = 8  # of all convolutions together
MAX_GRADIENT_NORM = 10.0
MAX_LOG_VARIANCE = 10.0  # in absolute value


class CuriosityLosses(NamedTuple):
    """Means over a batch of transitions, without gradient."""

    prediction: float  # squared error per feature
    reconstruction: float | None  # the VAE's negative evidence lower bound per pixel value


class FeatureEncoder(nn.Module):
    """Frame → features: three convolutions (8×8 stride 4, 4×4 stride 2, 3×3) and a linear layer."""

    def __init__(self, frame_size: int, features: int) -> None:
        super().__init__()
        if frame_size % STRIDE:
            raise ValueError(f"frame_size is {frame_size}; allowed: multiples of {STRIDE}")
        self.convolutions = nn.Sequential(
            nn.Conv2d(3, 32, 8, stride=4, padding=2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 64, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(64 * (frame_size // STRIDE) ** 2, features),
        )

    def forward(self, pixels_MCHW: Tensor) -> Tensor:
        """[M, F]."""
        return self.convolutions(pixels_MCHW)


class FrameDecoder(nn.Module):
    """Features → pixels: the encoder mirrored."""

    def __init__(self, frame_size: int, features: int) -> None:
        super().__init__()
        side = frame_size // STRIDE
        self.convolutions = nn.Sequential(
            nn.Linear(features, 64 * side**2),
            nn.LeakyReLU(0.2),
            nn.Unflatten(1, (64, side, side)),
            nn.ConvTranspose2d(64, 64, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(32, 3, 8, stride=4, padding=2),
        )

    def forward(self, features_MF: Tensor) -> Tensor:
        """[M, C, H, W]."""
        return self.convolutions(features_MF)


class FeaturePredictor(nn.Module):
    """φ(x_{t−1}), a_{t−1} → φ(x_t): residual blocks of two layers, each of which sees the action."""

    def __init__(self, features: int, num_actions: int, hidden: int, residual_blocks: int) -> None:
        super().__init__()
        self.num_actions = num_actions
        self.inward = nn.Linear(features + num_actions, hidden)
        self.first, self.second = (
            nn.ModuleList(nn.Linear(hidden + num_actions, hidden) for _ in range(residual_blocks)) for _ in range(2)
        )
        self.outward = nn.Linear(hidden + num_actions, features)

    def forward(self, features_MF: Tensor, actions_M: Tensor) -> Tensor:
        """[M, F]."""
        actions_MA = F.one_hot(actions_M, self.num_actions).to(features_MF.dtype)

        def told(x: Tensor) -> Tensor:
            return torch.cat([x, actions_MA], dim=-1)

        x = F.leaky_relu(self.inward(told(features_MF)), 0.2)
        for first, second in zip(self.first, self.second, strict=True):
            x = x + second(told(F.leaky_relu(first(told(x)), 0.2)))
        return self.outward(told(x))


class FeatureCuriosity(OnlineLearner):
    """Prediction errors as rewards; learning lowers them where the agent has been.

    Args:
        kind: of features.
        frame_size: height and width of the frames, a multiple of 8.
        num_actions: A.
    """

    def __init__(
        self, kind: Literal["rf", "vae"], config: CuriosityConfig, *, frame_size: int, num_actions: int
    ) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            width = config.features if kind == "rf" else 2 * config.features  # a VAE's means and log variances
            self.encoder = FeatureEncoder(frame_size, width)
            self.decoder = FrameDecoder(frame_size, config.features) if kind == "vae" else None
            self.predictor = FeaturePredictor(config.features, num_actions, config.hidden, config.residual_blocks)
            for parameter in self.parameters():
                nn.init.xavier_uniform_(parameter) if parameter.ndim > 1 else nn.init.zeros_(parameter)
        self.encoder.requires_grad_(self.decoder is not None)
        self.updates = 0
        learned = [parameter for parameter in self.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(learned, lr=config.learning_rate)

    @torch.no_grad()
    def errors(self, frames_M2HWC: Tensor, actions_M: Tensor) -> Tensor:
        """Squared error per feature, [M], of predicting φ(x_t) from φ(x_{t−1}) and the action between.

        Args:
            frames_M2HWC: uint8, the frames before and after.
            actions_M: int64.
        """
        before_MF, after_MF = (self._means(pixels_MCHW) for pixels_MCHW in _pixels(frames_M2HWC))
        return (self.predictor(before_MF, actions_M) - after_MF).square().mean(dim=-1)

    def learn(self, frames_M2HWC: Tensor, actions_M: Tensor) -> CuriosityLosses:
        """One Adam step on these transitions. Features are fixed targets: the prediction loss does not move them.

        Raises:
            RuntimeError: the gradients are not finite; the weights are unchanged.
        """
        before_MCHW, after_MCHW = _pixels(frames_M2HWC)
        with torch.no_grad():
            before_MF, after_MF = self._means(before_MCHW), self._means(after_MCHW)
        loss = prediction = (self.predictor(before_MF, actions_M) - after_MF).square().mean()
        reconstruction = None if self.decoder is None else self._negative_evidence(after_MCHW)
        if reconstruction is not None:
            loss = loss + reconstruction
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters(), MAX_GRADIENT_NORM, error_if_nonfinite=True)
        self.optimizer.step()
        self.updates += 1
        return CuriosityLosses(
            float(prediction.detach()), None if reconstruction is None else float(reconstruction.detach())
        )

    def _means(self, pixels_MCHW: Tensor) -> Tensor:
        """φ, [M, F]."""
        return self.encoder(pixels_MCHW)[:, : self.config.features]

    def _negative_evidence(self, pixels_MCHW: Tensor) -> Tensor:
        """The VAE's negative ELBO per pixel value: unit-variance Gaussian likelihood and KL from N(0, 1)."""
        assert self.decoder is not None
        means_MF, log_variances_MF = self.encoder(pixels_MCHW).chunk(2, dim=-1)
        log_variances_MF = log_variances_MF.clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)
        drawn_MF = means_MF + torch.randn_like(means_MF) * (log_variances_MF / 2).exp()
        squared_error = (self.decoder(drawn_MF) - pixels_MCHW).square().sum() / 2
        divergence = (means_MF.square() + log_variances_MF.exp() - log_variances_MF - 1).sum() / 2
        return (squared_error + divergence) / pixels_MCHW.numel()


def _pixels(frames_M2HWC: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 frames before and after → two float [M, C, H, W] in [−½, ½]."""
    before_MCHW, after_MCHW = (frames_M2HWC.movedim(-1, -3).float() / 255 - 0.5).unbind(dim=1)
    return before_MCHW, after_MCHW
