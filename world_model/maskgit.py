"""MaskGIT decoding: predicted tokens start masked and are revealed over a few steps, the most confident first.

At each step every masked token is sampled, scored by its probability, and the least confident share is masked again. A
revealed token stays. *One-go* decodes all predicted frames together; *autoregressive* a few frames at a time.

Sources: MaskGIT (Chang et al., 2022, arXiv 2202.04200, Sec. 3.2), GenieRedux-G (Savov et al., CVPR 2025,
arXiv 2504.02515, Sec. 4) and the released implementation.

Axes: B batch, T frames, H W token grid, L predicted tokens (of all frames decoded together), K codes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

Schedule = Literal["cosine", "exp"]

# (tokens [B, T, H, W] with masks, first) → logits [B, T−first, H, W, K] of the tokens of frames first..T−1
Predict = Callable[[Tensor, int], Tensor]

# One for the batch; or one for each of its games, so that what is drawn for a game does not depend on the others
Generators = torch.Generator | Sequence[torch.Generator] | None


@dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    steps: int = 25  # S; paper, Sec. 4
    temperature: float = 1.0  # of the first step's Gumbel noise, falls linearly to 0; 0: greedy; published code
    schedule: Schedule = "cosine"  # published code
    mode: Literal["one_go", "autoregressive"] = "one_go"  # paper, Sec. 4
    frames_per_step: int = 2  # frames decoded together in mode "autoregressive"; paper, Sec. 4
    guidance: float = 0.0  # how far logits move away from those without actions; ours, for models with action_dropout

    def __post_init__(self) -> None:
        if self.steps < 1 or self.frames_per_step < 1:
            raise ValueError(
                f"decoding has steps={self.steps}, frames_per_step={self.frames_per_step}, allowed: 1 or more of each"
            )
        if not self.temperature >= 0:
            raise ValueError(f"decoding temperature is {self.temperature}, allowed: 0 or more")
        if not 0 <= self.guidance < math.inf:
            raise ValueError(f"decoding guidance is {self.guidance}, allowed: 0 or more, finite")
        if self.schedule not in ("cosine", "exp"):
            raise ValueError(f"decoding schedule is {self.schedule!r}, allowed: 'cosine', 'exp'")
        if self.mode not in ("one_go", "autoregressive"):
            raise ValueError(f"decoding mode is {self.mode!r}, allowed: 'one_go', 'autoregressive'")


def masked_count(progress: float, tokens: int, schedule: Schedule) -> int:
    """How many of `tokens` are still masked after the share `progress` in [0, 1] of the steps.

    cosine: ⌊cos(π/2 · progress) · tokens⌋; exp: ⌊(1 − tokens^(progress − 1)) · tokens⌋ (MaskGIT, Sec. 3.3 and App.).
    """
    if schedule == "cosine":
        share = math.cos(math.pi / 2 * progress)
    else:
        share = 1 - tokens ** (progress - 1)
    return int(share * tokens)


def gumbel_sample(logits: Tensor, temperature: float, generator: Generators = None) -> Tensor:
    """Draws a class per row of [B, ..., K] from softmax(logits / temperature); temperature 0 takes the argmax."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    # −log(−log u) of a uniform u is Gumbel; on a CPU, torch's own exponential noise takes five times as long.
    noise = _uniform(logits, generator).log_().neg_().log_().neg_()
    return (logits + temperature * noise).argmax(dim=-1)


def _uniform(like: Tensor, generator: Generators) -> Tensor:
    """float32 noise in [0, 1) with the shape of `like`, [B, ...]."""
    if generator is None or isinstance(generator, torch.Generator):
        return torch.rand(like.shape, device=like.device, generator=generator)
    return torch.stack(
        [torch.rand(game.shape, device=like.device, generator=one) for game, one in zip(like, generator, strict=True)]
    )


@torch.no_grad()
def decode(
    predict: Predict,
    prime_tokens_BTHW: Tensor,
    frames: int,
    *,
    mask_token: int,
    decoding: DecodingConfig,
    generator: Generators = None,
) -> Tensor:
    """Tokens of `frames` frames that follow the prime frames, [B, frames, H, W]."""
    at_once = frames if decoding.mode == "one_go" else decoding.frames_per_step
    tokens_BTHW = prime_tokens_BTHW
    for done in range(0, frames, at_once):
        count = min(at_once, frames - done)
        tokens_BTHW = decode_together(
            predict, tokens_BTHW, count, mask_token=mask_token, decoding=decoding, generator=generator
        )
    return tokens_BTHW[:, prime_tokens_BTHW.shape[1] :]


def decode_together(
    predict: Predict,
    known_tokens_BTHW: Tensor,
    frames: int,
    *,
    mask_token: int,
    decoding: DecodingConfig,
    generator: Generators,
) -> Tensor:
    """Appends `frames` frames to the known ones, refining all their tokens together: [B, T + frames, H, W]."""
    batch, first, height, width = known_tokens_BTHW.shape
    length = frames * height * width
    tokens_BL = known_tokens_BTHW.new_full((batch, length), mask_token)
    for step in range(decoding.steps):
        grid = rearrange(tokens_BL, "b (t h w) -> b t h w", h=height, w=width)
        logits_BTHWK = predict(torch.cat([known_tokens_BTHW, grid], dim=1), first)
        logits_BLK = rearrange(logits_BTHWK, "b t h w k -> b (t h w) k").float()
        progress = (step + 1) / decoding.steps
        sampled_BL = gumbel_sample(logits_BLK, decoding.temperature * (1 - progress), generator)
        tokens_BL = reveal(
            tokens_BL, sampled_BL, logits_BLK, masked_count(progress, length, decoding.schedule), mask_token
        )
    return torch.cat([known_tokens_BTHW, rearrange(tokens_BL, "b (t h w) -> b t h w", h=height, w=width)], dim=1)


def reveal(tokens_BL: Tensor, sampled_BL: Tensor, logits_BLK: Tensor, still_masked: int, mask_token: int) -> Tensor:
    """Fills the masked tokens with the sampled ones, except the `still_masked` least probable. Revealed ones stay."""
    masked_BL = tokens_BL == mask_token
    log_prob_BL = logits_BLK.log_softmax(dim=-1).gather(-1, sampled_BL[..., None])[..., 0]
    least_sure_BL = log_prob_BL.masked_fill(~masked_BL, torch.inf).topk(still_masked, largest=False).indices
    filled_BL = torch.where(masked_BL, sampled_BL, tokens_BL)
    return filled_BL.scatter(-1, least_sure_BL, mask_token)
