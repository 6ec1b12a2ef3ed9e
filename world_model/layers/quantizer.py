"""Codebooks: three ways to turn vectors into tokens, behind one interface.

"cosine"  the published codebook: argmax of (L2-normalised vector · code row), rows learned by gradient
          (Kazemi et al., 2024, arXiv 2409.06445; loss: van den Oord et al., 2017, arXiv 1711.00937, eq. 3)
"ema"     cosine codebook updated by moving averages, k-means start, unused codes revived (vector-quantize-pytorch)
"fsq"     finite scalar quantisation: a fixed grid of codes (Mentzer et al., 2023, arXiv 2309.15505)

Axes: M vectors, D width, K codes, C dimensions of a code.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from vector_quantize_pytorch import FSQ, VectorQuantize


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    kind: Literal["cosine", "ema", "fsq"] = "cosine"  # published code
    codes: int = 1024  # paper, Sec. 4; "fsq" has the product of its levels instead
    code_dim: int = 32  # paper, Sec. 4; "fsq" has one dimension per level instead
    commitment: float = 0.25  # published code; "fsq" has no such loss
    levels: tuple[int, ...] = (8, 5, 5, 5)  # "fsq" only: about 2^10 codes (Mentzer et al., Tab. 1)

    def __post_init__(self) -> None:
        if self.kind not in ("cosine", "ema", "fsq"):
            raise ValueError(f"quantizer kind is {self.kind!r}, allowed: 'cosine', 'ema', 'fsq'")
        if self.codes < 2 or self.code_dim < 1:
            raise ValueError(f"quantizer has codes={self.codes}, code_dim={self.code_dim}; allowed: at least 2 and 1")
        if not self.commitment >= 0:
            raise ValueError(f"quantizer commitment is {self.commitment}, allowed: 0 or more")
        if not self.levels or min(self.levels) < 3:
            raise ValueError(f"quantizer levels are {self.levels}, allowed: one or more integers, 3 or more each")

    @property
    def size(self) -> int:
        """K, the number of codes."""
        return math.prod(self.levels) if self.kind == "fsq" else self.codes


class Quantized(NamedTuple):
    """A quantizer's output for vectors [..., D]."""

    vectors: Tensor  # [..., D], the codes projected back; gradients pass as the class says
    tokens: Tensor  # [...] int64
    loss: Tensor  # scalar


class Quantizer(nn.Module, ABC):
    """Interface of the three codebooks. Vectors of width D are projected to C, looked up, and projected back."""

    @abstractmethod
    def forward(self, vectors: Tensor) -> Quantized:
        """[..., D] → Quantized. In training mode, an "ema" codebook also updates itself."""

    @abstractmethod
    def code_vectors(self) -> Tensor:
        """The codes themselves, [K, C]."""

    def distance_vectors(self) -> Tensor:
        """Vectors [K, C] whose squared Euclidean distance says how unlike two tokens are (for TDCE).

        Here the cosine distance of their codes, 1 − cos, in [0, 2].
        """
        return F.normalize(self.code_vectors(), dim=-1) / math.sqrt(2)

    @abstractmethod
    def project_out(self, codes: Tensor) -> Tensor:
        """[..., C] → [..., D]."""

    def token_vectors(self) -> Tensor:
        """All codes projected to the model's width, [K, D]: row k is what token k stands for in a decoder."""
        return self.project_out(self.code_vectors())


class CosineQuantizer(Quantizer):
    """Codebook learned by gradient. Rows are normalised at initialisation only; gradients pass straight through it.

    Both as published.
    """

    def __init__(self, config: QuantizerConfig, dim: int) -> None:
        super().__init__()
        self.commitment = config.commitment
        self.to_code = nn.Linear(dim, config.code_dim)
        self.from_code = nn.Linear(config.code_dim, dim)
        self.codebook_KC = nn.Parameter(F.normalize(torch.randn(config.size, config.code_dim), dim=-1))

    def forward(self, vectors: Tensor) -> Quantized:
        z = self.to_code(vectors)
        with torch.autocast(z.device.type, enabled=False):  # bf16 would confuse neighbouring codes
            z = F.normalize(z.float(), dim=-1)
            tokens = (z @ self.codebook_KC.t()).argmax(dim=-1)
            codes = F.embedding(tokens, self.codebook_KC)
            loss = F.mse_loss(codes, z.detach()) + self.commitment * F.mse_loss(z, codes.detach())
            straight_through = z + (codes - z).detach()
        return Quantized(self.from_code(straight_through), tokens, loss)

    def code_vectors(self) -> Tensor:
        return self.codebook_KC

    def project_out(self, codes: Tensor) -> Tensor:
        return self.from_code(codes)


class EMAQuantizer(Quantizer):
    """Cosine codebook that follows the data by exponential moving averages.

    The library passes gradients through it turned and scaled as the code is to the vector, not straight: its default,
    the rotation trick (Fifty et al., 2024, arXiv 2410.06424).
    """

    def __init__(self, config: QuantizerConfig, dim: int) -> None:
        super().__init__()
        self.vq = VectorQuantize(
            dim,
            codebook_size=config.size,
            codebook_dim=config.code_dim,
            use_cosine_sim=True,
            kmeans_init=True,
            threshold_ema_dead_code=2,
            decay=0.9,
            commitment_weight=config.commitment,
        )

    def forward(self, vectors: Tensor) -> Quantized:
        if not self.training and not self.vq._codebook.initted:  # the library would initialise it even in evaluation
            raise ValueError('an "ema" codebook has no codes before its first training batch')
        quantized, tokens, loss = self.vq(vectors.flatten(0, -2)[None])
        return Quantized(quantized.view_as(vectors), tokens.view(vectors.shape[:-1]).long(), loss.sum())

    def code_vectors(self) -> Tensor:
        return self.vq.codebook

    def project_out(self, codes: Tensor) -> Tensor:
        return self.vq.project_out(codes)


class FSQQuantizer(Quantizer):
    """Finite scalar quantisation: each of C dimensions is squashed and rounded to its number of levels.

    Gradients pass straight through the rounding.
    """

    def __init__(self, config: QuantizerConfig, dim: int) -> None:
        super().__init__()
        self.fsq = FSQ(list(config.levels), dim=dim)

    def forward(self, vectors: Tensor) -> Quantized:
        quantized, tokens = self.fsq(vectors.flatten(0, -2)[None])
        return Quantized(quantized.view_as(vectors), tokens.view(vectors.shape[:-1]).long(), quantized.new_zeros(()))

    def code_vectors(self) -> Tensor:
        return self.fsq.implicit_codebook

    def distance_vectors(self) -> Tensor:
        """As in the interface. A code is a place in a grid, so its distance is Euclidean; the mean of all pairs is 1,
        about as for the cosine distance of random codes."""
        codes_KC = self.fsq.implicit_codebook
        return codes_KC / (2 * codes_KC.var(dim=0, correction=0).sum()).sqrt()

    def project_out(self, codes: Tensor) -> Tensor:
        return self.fsq.project_out(codes)


def build_quantizer(config: QuantizerConfig, dim: int) -> Quantizer:
    """The codebook that `config` describes, for vectors of width `dim`."""
    match config.kind:
        case "cosine":
            return CosineQuantizer(config, dim)
        case "ema":
            return EMAQuantizer(config, dim)
        case "fsq":
            return FSQQuantizer(config, dim)
