"""ST-ViViT: the video tokenizer, a VQ-VAE whose encoder and decoder are causal ST transformers.

frames → patches → encoder → codebook → tokens → decoder → patches → frames. Causality in time means that the tokens
of a clip's first frames do not change when the clip continues.

Sources: GenieRedux (Kazemi et al., 2024, arXiv 2409.06445, Sec. 3.1), GenieRedux-G (Savov et al., CVPR 2025,
arXiv 2504.02515, Sec. 4), and the released implementation for what they leave open.

Axes: B batch, T frames, H W pixels in `frames_BTHWC` and token grid elsewhere, C colour channels (of frames) or
dimensions of a code, P values of a patch, D width, K codes.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world_model.layers.autoencoder import Autoencoder, AutoencoderConfig
from world_model.layers.checks import check_frames, check_length, check_tokens
from world_model.layers.patches import from_patches, to_patches, to_uint8
from world_model.layers.quantizer import QuantizerConfig, build_quantizer
from world_model.layers.transformer import TransformerCache

DECODER_PARTS = ("decoder", "pixel_head")  # name prefixes of what tokens and their vectors do not depend on


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig(AutoencoderConfig):
    # Both are ours: the published codebook, and coding without a mean frame, scored worse at a small size
    # (experiments/ablations). The published choices are in experiments/published.
    quantizer: QuantizerConfig = field(default_factory=lambda: QuantizerConfig(kind="fsq"))
    mean_frame: bool = True  # code how a frame differs from the data's mean frame
    # Ours: the decoder adds its own mean frame, so that it can learn another game's while tokens stay the same.
    decoder_mean_frame: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decoder_mean_frame and not self.mean_frame:
            raise ValueError("TokenizerConfig: decoder_mean_frame is True, allowed: with mean_frame only")


class TokenizerOutput(NamedTuple):
    """Result of a training pass."""

    loss: Tensor  # scalar: reconstruction + quantisation, both with weight 1
    metrics: dict[str, Tensor]  # scalars without gradient
    reconstruction_BTHWC: Tensor  # float pixels, ideally in [0, 1], not clipped
    tokens_BTHW: Tensor


class Tokenizer(Autoencoder):
    """Frames ↔ tokens. The module's docstring describes the architecture."""

    config: TokenizerConfig

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__(config)
        self.quantizer = build_quantizer(config.quantizer, config.dim)
        self.tokens_frozen = False
        if config.mean_frame:
            self.mean_patches_HWP = nn.Parameter(torch.zeros(*config.grid, config.patch_values))
            for head in (self.pixel_head.first_frame, self.pixel_head.next_frames):
                nn.init.normal_(head.weight, std=0.002)  # so that the first reconstruction is the mean frame
                nn.init.zeros_(head.bias)
        if config.decoder_mean_frame:
            self.decoder_mean_patches_HWP = nn.Parameter(torch.zeros(*config.grid, config.patch_values))

    def for_decoder_tuning(self) -> "Tokenizer":
        """A copy in which only decoder, pixel head and the decoder's mean frame learn: how the paper adapts to a game.

        Tokens and their vectors stay the same, bit for bit, so that a dynamics model still understands them. This also
        freezes the position bias, which encoder and decoder share.
        """
        tuned = Tokenizer(replace(self.config, decoder_mean_frame=self.config.mean_frame))
        state = self.state_dict()
        if self.config.mean_frame and not self.config.decoder_mean_frame:
            state["decoder_mean_patches_HWP"] = self.mean_patches_HWP
        tuned.load_state_dict(state)
        for name, parameter in tuned.named_parameters():
            parameter.requires_grad_(name.startswith(DECODER_PARTS))
        tuned.tokens_frozen = True
        return tuned

    def token_state(self) -> dict[str, Tensor]:
        """The part of the state that tokens and their vectors depend on: all but the decoder's."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith(DECODER_PARTS)}

    def train(self, mode: bool = True) -> Self:
        """As in any module, but a frozen codebook stays in evaluation mode ("ema" follows the data in training)."""
        super().train(mode)
        if self.tokens_frozen:
            self.quantizer.eval()
        return self

    @torch.no_grad()
    def initialize_mean_frame(self, frames_BTHWC: Tensor) -> None:
        """Initialises the learned mean frame to the mean of `frames_BTHWC` (uint8; any B and T). Call before training.

        Raises ValueError if the config has no mean frame.
        """
        if not self.config.mean_frame:
            raise ValueError("this tokenizer has no mean frame, allowed: TokenizerConfig(mean_frame=True)")
        check_frames(frames_BTHWC, self.config.frame_size, max_frames=frames_BTHWC.shape[1])
        mean_HWP = to_patches(frames_BTHWC, self.config.patch_size).mean(dim=(0, 1))
        self.mean_patches_HWP.copy_(mean_HWP)
        if self.config.decoder_mean_frame:
            self.decoder_mean_patches_HWP.copy_(mean_HWP)

    def forward(self, frames_BTHWC: Tensor) -> TokenizerOutput:
        """Reconstructs uint8 frames and returns the training loss (means over all pixels and over all code values)."""
        patches_BTHWP = self._patches(frames_BTHWC)
        spatial_bias_hNN = self.spatial_bias()
        quantized = self.quantizer(self._encode(patches_BTHWP, spatial_bias_hNN))
        reconstruction_BTHWP = self.decode_vectors(quantized.vectors, spatial_bias_hNN)
        loss, metrics, reconstruction_BTHWC = self._outcome(patches_BTHWP, reconstruction_BTHWP, quantized)
        metrics["psnr"] = -10 * metrics["reconstruction_mse"].log10()
        return TokenizerOutput(loss, metrics, reconstruction_BTHWC, quantized.tokens)

    @torch.no_grad()
    def encode(self, frames_BTHWC: Tensor) -> Tensor:
        """uint8 frames [B, T, H, W, C] → tokens [B, T, H, W] int64 on the token grid."""
        patches_BTHWP = self._patches(frames_BTHWC)
        return self.quantizer(self._encode(patches_BTHWP, self.spatial_bias())).tokens

    @torch.no_grad()
    def decode(self, tokens_BTHW: Tensor) -> Tensor:
        """Tokens [B, T, H, W] of a clip from its first frame on → uint8 frames [B, T, H, W, C]."""
        return to_uint8(self.decode_to_pixels(tokens_BTHW))

    def decode_to_pixels(self, tokens_BTHW: Tensor) -> Tensor:
        """As `decode`, but float pixels, neither clipped nor rounded."""
        check_length(tokens_BTHW.shape[1], self.config.max_frames)
        check_tokens(tokens_BTHW, self.config.grid, self.config.quantizer.size)
        patches_BTHWP = self.decode_vectors(F.embedding(tokens_BTHW, self.token_vectors()), self.spatial_bias())
        return from_patches(patches_BTHWP, self.config.patch_size)

    def code_vectors(self) -> Tensor:
        """The codebook, [K, C]."""
        return self.quantizer.code_vectors()

    def distance_vectors(self) -> Tensor:
        """Vectors [K, C] whose squared Euclidean distance says how unlike two tokens are."""
        return self.quantizer.distance_vectors()

    def token_vectors(self) -> Tensor:
        """The codebook projected to the model's width, [K, D]."""
        return self.quantizer.token_vectors()

    def _encode(self, patches_BTHWP: Tensor, spatial_bias_hNN: Tensor) -> Tensor:
        if self.config.mean_frame:
            patches_BTHWP = patches_BTHWP - self.mean_patches_HWP
        return self.encoder(self.patch_embedding(patches_BTHWP), spatial_bias_hNN)

    def decode_vectors(
        self, vectors_BTHWD: Tensor, spatial_bias_hNN: Tensor, *, cache: TransformerCache | None = None, start: int = 0
    ) -> Tensor:
        """Token vectors of frames `start`.. → patches [B, T, H, W, P]; earlier frames are in the decoder's cache."""
        decoded_BTHWD = self.decoder(vectors_BTHWD, spatial_bias_hNN, cache=cache, start=start)
        patches_BTHWP = self.pixel_head(decoded_BTHWD, start=start)
        if self.config.decoder_mean_frame:
            return patches_BTHWP + self.decoder_mean_patches_HWP
        return patches_BTHWP + self.mean_patches_HWP if self.config.mean_frame else patches_BTHWP
