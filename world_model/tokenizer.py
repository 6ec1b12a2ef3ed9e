"""ST-ViViT: the video tokenizer, a VQ-VAE whose encoder and decoder are causal ST transformers.

frames → patches → encoder → codebook → tokens → decoder → patches → frames. Causality in time means that the tokens
of a clip's first frames do not change when the clip goes on.

Sources: GenieRedux (Kazemi et al., 2024, arXiv 2409.06445, Sec. 3.1), GenieRedux-G (Savov et al., CVPR 2025,
arXiv 2504.02515, Sec. 4), and the released implementation for what they leave open.

Axes: B batch, T frames, H W pixels in `frames_BTHWC` and token grid elsewhere, C colour channels (of frames) or
dimensions of a code, P values of a patch, D width, K codes.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world_model.checks import CHANNELS, check_frames, check_length, check_positive
from world_model.patches import PatchEmbedding, PixelHead, from_patches, to_patches, to_uint8
from world_model.quantizer import QuantizerConfig, build_quantizer
from world_model.transformer import ContinuousPositionBias, Order, SpatioTemporalTransformer


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    frame_size: int = 64  # pixels; paper, Sec. 4
    patch_size: int = 4  # pixels; paper, Sec. 4
    max_frames: int = 16  # longest clip; paper, Sec. 4
    dim: int = 512  # paper, Sec. 4
    blocks: int = 8  # of the encoder and of the decoder each; paper, Sec. 4
    heads: int = 8  # paper, Sec. 4
    head_dim: int = 64  # paper, Sec. 4
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    mean_frame: bool = False  # ours: code how a frame differs from the data's mean frame; learns far sooner

    def __post_init__(self) -> None:
        check_positive(self, "frame_size", "patch_size", "max_frames", "dim", "blocks", "heads", "head_dim")
        if self.frame_size % self.patch_size:
            raise ValueError(
                f"TokenizerConfig: frame_size is {self.frame_size}, allowed: multiples of patch_size {self.patch_size}"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Token grid (H, W) of one frame."""
        side = self.frame_size // self.patch_size
        return side, side

    @property
    def patch_values(self) -> int:
        """P, the number of values of one patch."""
        return CHANNELS * self.patch_size**2


class TokenizerOutput(NamedTuple):
    """Result of a training pass."""

    loss: Tensor  # scalar: reconstruction + quantisation, both with weight 1
    metrics: dict[str, Tensor]  # scalars without gradient
    reconstruction_BTHWC: Tensor  # float pixels, [0, 1] where the model is right, not clipped
    tokens_BTHW: Tensor


class Tokenizer(nn.Module):
    """Frames ↔ tokens. The module's docstring tells the architecture."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config

        def transformer(order: Order) -> SpatioTemporalTransformer:
            return SpatioTemporalTransformer(
                dim=config.dim,
                blocks=config.blocks,
                heads=config.heads,
                head_dim=config.head_dim,
                max_frames=config.max_frames,
                order=order,
            )

        self.patch_embedding = PatchEmbedding(config.patch_values, config.dim)
        self.spatial_bias = ContinuousPositionBias(config.grid, config.heads, hidden=config.dim)
        self.encoder = transformer("st")
        self.quantizer = build_quantizer(config.quantizer, config.dim)
        self.decoder = transformer("ts")
        self.pixel_head = PixelHead(config.dim, config.patch_values)
        if config.mean_frame:
            self.mean_patches_HWP = nn.Parameter(torch.zeros(*config.grid, config.patch_values))
            for head in (self.pixel_head.first_frame, self.pixel_head.next_frames):
                nn.init.normal_(head.weight, std=0.002)  # so that the first reconstruction is the mean frame
                nn.init.zeros_(head.bias)

    @torch.no_grad()
    def initialize_mean_frame(self, frames_BTHWC: Tensor) -> None:
        """Starts the learned mean frame at the mean of `frames_BTHWC` (uint8; any B and T). Call it before training.

        Raises ValueError where the config has no mean frame.
        """
        if not self.config.mean_frame:
            raise ValueError("this tokenizer has no mean frame, allowed: TokenizerConfig(mean_frame=True)")
        check_frames(frames_BTHWC, self.config.frame_size, max_frames=frames_BTHWC.shape[1])
        self.mean_patches_HWP.copy_(to_patches(frames_BTHWC, self.config.patch_size).mean(dim=(0, 1)))

    def forward(self, frames_BTHWC: Tensor) -> TokenizerOutput:
        """Reconstructs uint8 frames and returns the training loss (means over all pixels and over all code values)."""
        check_frames(frames_BTHWC, self.config.frame_size, self.config.max_frames)
        patches_BTHWP = to_patches(frames_BTHWC, self.config.patch_size)
        spatial_bias_hNN = self.spatial_bias()
        quantized = self.quantizer(self._encode(patches_BTHWP, spatial_bias_hNN))
        reconstruction_BTHWP = self._decode(quantized.vectors, spatial_bias_hNN)
        reconstruction_loss = F.mse_loss(reconstruction_BTHWP, patches_BTHWP)
        loss = reconstruction_loss + quantized.loss
        metrics = {
            "loss": loss.detach(),
            "reconstruction_mse": reconstruction_loss.detach(),
            "quantization_loss": quantized.loss.detach(),
            "psnr": -10 * reconstruction_loss.detach().log10(),
            "codes_used": torch.tensor(float(quantized.tokens.unique().numel())),
        }
        reconstruction_BTHWC = from_patches(reconstruction_BTHWP, self.config.patch_size)
        return TokenizerOutput(loss, metrics, reconstruction_BTHWC, quantized.tokens)

    @torch.no_grad()
    def encode(self, frames_BTHWC: Tensor) -> Tensor:
        """uint8 frames [B, T, H, W, C] → tokens [B, T, H, W] int64 on the token grid."""
        check_frames(frames_BTHWC, self.config.frame_size, self.config.max_frames)
        patches_BTHWP = to_patches(frames_BTHWC, self.config.patch_size)
        return self.quantizer(self._encode(patches_BTHWP, self.spatial_bias())).tokens

    @torch.no_grad()
    def decode(self, tokens_BTHW: Tensor) -> Tensor:
        """Tokens [B, T, H, W] of a clip from its first frame on → uint8 frames [B, T, H, W, C]."""
        return to_uint8(self.decode_to_pixels(tokens_BTHW))

    def decode_to_pixels(self, tokens_BTHW: Tensor) -> Tensor:
        """As `decode`, but float pixels, neither clipped nor rounded."""
        check_length(tokens_BTHW.shape[1], self.config.max_frames)
        vectors_BTHWD = F.embedding(tokens_BTHW, self.token_vectors())
        return from_patches(self._decode(vectors_BTHWD, self.spatial_bias()), self.config.patch_size)

    def code_vectors(self) -> Tensor:
        """The codebook, [K, C]."""
        return self.quantizer.code_vectors()

    def token_vectors(self) -> Tensor:
        """The codebook projected to the model's width, [K, D]."""
        return self.quantizer.token_vectors()

    def _encode(self, patches_BTHWP: Tensor, spatial_bias_hNN: Tensor) -> Tensor:
        if self.config.mean_frame:
            patches_BTHWP = patches_BTHWP - self.mean_patches_HWP
        return self.encoder(self.patch_embedding(patches_BTHWP), spatial_bias_hNN)

    def _decode(self, vectors_BTHWD: Tensor, spatial_bias_hNN: Tensor) -> Tensor:
        patches_BTHWP = self.pixel_head(self.decoder(vectors_BTHWD, spatial_bias_hNN))
        return patches_BTHWP + self.mean_patches_HWP if self.config.mean_frame else patches_BTHWP
