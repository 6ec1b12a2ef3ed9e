"""Attention along space or along time, and its cache of past frames.

Sources: as in transformer.py; attention of frames to a complete past: MAGI (Zhou et al., 2025, arXiv 2501.12389).

Axes: M sequences, S positions, D width, h heads, C dimensions of a head; B batch, T frames, H W token grid.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

ATTENTION_SCALE = 8.0  # cosine similarities lie in [−1, 1]; the fixed factor lets the softmax become sharp
SMALLEST_NORM = 1e-6
PACKED_LENGTH = 32  # up to this, short sequences are packed into one attention problem on a CPU


class Attention(nn.Module):
    """Cosine-similarity attention over the second-to-last axis: [..., S, D] → the same.

    Queries and keys are L2-normalised and scaled per dimension. As published, only the queries see the pre-norm;
    keys and values are projected from the un-normalised input.
    """

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm: nn.Module = nn.LayerNorm(dim, bias=False)
        self.to_q = nn.Linear(dim, heads * head_dim, bias=False)
        self.to_kv = nn.Linear(dim, 2 * heads * head_dim, bias=False)
        self.q_scale = nn.Parameter(torch.ones(head_dim))
        self.k_scale = nn.Parameter(torch.ones(head_dim))
        self.to_out = nn.Linear(heads * head_dim, dim, bias=False)

    def forward(
        self,
        x_MSD: Tensor,
        bias_hSS: Tensor,
        cache: "HalfBlockCache | None" = None,
        start: int = 0,
        skipped: int = 0,
    ) -> Tensor:
        """`bias_hSS` is added to the scores; with a cache, x is a clip's continuation from position `start` on.

        The first `skipped` positions are read but ask nothing: [..., S − skipped, D].
        """
        q, k, v = self._queries(x_MSD[:, skipped:].contiguous()), *self._keys_and_values(x_MSD)
        if cache is not None:
            k, v = cache.extend(k, v, start)
        return self.to_out(rearrange(attend(q, k, v, bias_hSS[:, skipped:]), "m h s c -> m s (h c)"))

    def forward_paired(self, x_MSD: Tensor, bias_hTT: Tensor, *, asked_only: bool) -> Tensor:
        """The same along time for pairs of clips; see `attend_paired`. `asked_only`: [M/2, S, D], of the asked ones."""
        asking_MSD = x_MSD.chunk(2)[1] if asked_only else x_MSD
        q, k, v = self._queries(asking_MSD), *self._keys_and_values(x_MSD)
        return self.to_out(rearrange(attend_paired(q, k, v, bias_hTT), "m h s c -> m s (h c)"))

    @torch.no_grad()
    def fold_norm(self) -> None:
        """Makes the pre-norm a part of the queries' weights, for a model that learns no more.

        A query is divided by its length, so the norm's division makes no difference; subtracting the mean is linear.
        """
        weight = self.to_q.weight * self.norm.get_parameter("weight")
        self.to_q.weight.copy_(weight - weight.mean(dim=1, keepdim=True))
        self.norm = nn.Identity()

    def _queries(self, x_MSD: Tensor) -> Tensor:
        q_MShC = rearrange(self.to_q(self.norm(x_MSD)), "m s (h c) -> m s h c", h=self.heads)
        # Scores are Σ_c q_c · k_c, so both scales can be applied to the queries.
        q_MShC = _unit(q_MShC) * (self.q_scale * self.k_scale * ATTENTION_SCALE).to(q_MShC.dtype)
        return q_MShC.transpose(1, 2)

    def _keys_and_values(self, x_MSD: Tensor) -> tuple[Tensor, Tensor]:
        # A product each: halves of one product would not be contiguous, and what follows takes up to four times as long
        k, v = (F.linear(x_MSD, weight) for weight in self.to_kv.weight.chunk(2))
        k, v = (rearrange(z, "m s (h c) -> m s h c", h=self.heads) for z in (k, v))
        return _unit(k).transpose(1, 2), v.transpose(1, 2)


def attend(q_MhSC: Tensor, k_MhSC: Tensor, v_MhSC: Tensor, bias_hSS: Tensor) -> Tensor:
    """softmax(q·k + bias) · v, [M, h, S, C]."""
    if q_MhSC.device.type == "cpu" and q_MhSC.dtype == torch.bfloat16 and not torch.is_grad_enabled():
        # Half the time of PyTorch's fused kernel; the bias is added before scores are rounded.
        (rows, heads), asked = q_MhSC.shape[:2], q_MhSC.shape[-2]
        q, k, v = (z.flatten(0, 1) for z in (q_MhSC, k_MhSC, v_MhSC))
        scores = torch.baddbmm(bias_hSS.repeat(rows, 1, 1), q, k.mT)
        return torch.bmm(scores.softmax(dim=-1), v).view(rows, heads, asked, -1)
    if q_MhSC.device.type == "cpu" and (torch.is_grad_enabled() or q_MhSC.shape[-2] < k_MhSC.shape[-2]):
        # PyTorch's fused CPU kernel has no gradient for the bias, a very slow backward pass for short sequences, and
        # takes twice as long for the few queries of cached decoding.
        scores_MhSS = torch.matmul(q_MhSC, k_MhSC.transpose(-1, -2)) + bias_hSS
        return torch.matmul(scores_MhSS.softmax(dim=-1).to(v_MhSC.dtype), v_MhSC)
    rows, _, length, _ = k_MhSC.shape
    packed = PACKED_LENGTH // length
    if q_MhSC.device.type != "cpu" or packed < 2 or rows % packed:
        return F.scaled_dot_product_attention(q_MhSC, k_MhSC, v_MhSC, attn_mask=bias_hSS[None], scale=1.0)
    # Packing several short sequences into one, masked from each other, is up to four times as fast.
    apart = torch.eye(packed, dtype=torch.bool, device=bias_hSS.device).logical_not()[:, None, :, None]
    bias_hPSPS = bias_hSS[:, None, :, None].expand(-1, packed, -1, packed, -1).masked_fill(apart, -torch.inf)
    q, k, v = (rearrange(z, "(m p) h s c -> m h (p s) c", p=packed) for z in (q_MhSC, k_MhSC, v_MhSC))
    bias = rearrange(bias_hPSPS, "h p s q r -> 1 h (p s) (q r)")
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
    return rearrange(attended, "m h (p s) c -> (m p) h s c", p=packed)


def attend_paired(q_MhSC: Tensor, k_MhSC: Tensor, v_MhSC: Tensor, bias_hTT: Tensor) -> Tensor:
    """Causal attention of known clips and of asked ones, which read them; [M, h, S, C], or [M/2, h, S, C].

    Keys and values are those of the known clips, then those of the asked ones; queries are of both, or of the asked
    ones only. An asked clip's position i is position i + 1 of its known one, which it reads up to i, besides itself.
    `bias_hTT` is that of T = S + 1 positions.
    """
    (k_known, k), (v_known, v) = (z.chunk(2) for z in (k_MhSC, v_MhSC))
    q = q_MhSC[-len(k) :]
    future = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).triu(1)
    past_MhSS = (q @ k_known.transpose(-1, -2) + bias_hTT[:, 1:, :-1]).masked_fill(future, -torch.inf)
    own_MhS1 = (q * k).sum(dim=-1, keepdim=True) + bias_hTT.diagonal(dim1=1, dim2=2)[:, 1:, None]
    probs_MhST = torch.cat([past_MhSS, own_MhS1], dim=-1).softmax(dim=-1).to(v.dtype)
    asked = probs_MhST[..., :-1] @ v_known + probs_MhST[..., -1:] * v
    if len(q_MhSC) == len(k):
        return asked
    return torch.cat([attend(q_MhSC[: len(k)], k_known, v_known, bias_hTT[:, :-1, :-1]), asked])


def _unit(x: Tensor) -> Tensor:
    """x / |x| over the last axis."""
    return _Unit.apply(x) if torch.is_grad_enabled() else x * _reciprocal_norm(x)


def _reciprocal_norm(x: Tensor) -> Tensor:
    precise = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=precise)
    return norm.clamp_(min=SMALLEST_NORM).reciprocal_().to(x.dtype)


class _Unit(torch.autograd.Function):
    """With the gradient (g − y (y·g)) / |x|: half the time of what autograd makes of the division."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        reciprocal = _reciprocal_norm(x)
        y = x * reciprocal
        ctx.save_for_backward(y, reciprocal)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        y, reciprocal = ctx.saved_tensors
        along = (gradient * y).sum(dim=-1, keepdim=True)
        return torch.addcmul(gradient, y, along, value=-1).mul_(reciprocal)


class HalfBlockCache:
    """A half block's cache of past frames: PEG inputs of the last two, and all keys and values along time.

    Frames fed from position `start` on replace everything cached from there on, so a frame may be fed repeatedly until
    it is final.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity  # frames
        self._inputs_BTHWD: Tensor | None = None
        self._inputs_start = 0
        self._past: tuple[int, int, Tensor | None] | None = None  # position and length of the piece, what `past` gave
        self._keys_MhTC: Tensor | None = None
        self._values_MhTC: Tensor | None = None

    def past(self, x_BTHWD: Tensor, start: int, compute: Callable[[Tensor, int], Tensor | None]) -> Tensor | None:
        """What earlier frames add to the PEG of a piece, computed once while pieces from `start` on replace it."""
        before_BTHWD, frames = self.before(x_BTHWD, start), x_BTHWD.shape[1]
        if self._past is None or self._past[:2] != (start, frames):
            self._past = start, frames, compute(before_BTHWD, frames)
        return self._past[2]

    def before(self, x_BTHWD: Tensor, start: int) -> Tensor:
        """Up to two PEG inputs before position `start`; caches those of x."""
        before_BTHWD = x_BTHWD[:, :0]
        if self._inputs_BTHWD is not None:
            end = start - self._inputs_start
            before_BTHWD = self._inputs_BTHWD[:, max(0, end - 2) : end]
        self._inputs_BTHWD = torch.cat([before_BTHWD, x_BTHWD], dim=1)
        self._inputs_start = start - before_BTHWD.shape[1]
        return before_BTHWD

    def extend(self, k_MhTC: Tensor, v_MhTC: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Keys and values of all frames up to the last one fed."""
        end = start + k_MhTC.shape[2]
        if self._keys_MhTC is None or self._values_MhTC is None:
            rows, heads, _, channels = k_MhTC.shape
            shape = rows, heads, self._capacity, channels
            self._keys_MhTC, self._values_MhTC = k_MhTC.new_empty(shape), v_MhTC.new_empty(shape)
        self._keys_MhTC[:, :, start:end] = k_MhTC
        self._values_MhTC[:, :, start:end] = v_MhTC
        return self._keys_MhTC[:, :, :end], self._values_MhTC[:, :, :end]
