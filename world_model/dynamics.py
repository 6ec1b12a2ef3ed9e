"""Dynamics: a MaskGIT transformer that predicts the next frames' tokens from past tokens and actions.

Alignments. As published ("shifted", Genie), the output at frame t is the logits of frame t+1, so the inputs are frames
0..T−2 and actions 0..T−2. In "aligned" (ours), the output at frame t is the logits of frame t itself: the inputs are
its masked tokens and action t−1, which led to it, so a frame's revealed tokens refine its other ones.

Sources: GenieRedux-G (Savov et al., CVPR 2025, arXiv 2504.02515, Secs. 3–4: token input, TDCE), Genie (Bruce et al.,
2024, arXiv 2402.15391, Sec. 2.1), MaskGIT (Chang et al., 2022, arXiv 2202.04200), and the released implementation.

Axes: B batch, T frames, H W token grid, N = H·W, D width of embeddings, E width of the stream, A actions, K codes,
C dimensions of a code, M masked positions.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from world_model.layers.checks import check_length, check_positive
from world_model.layers.head import HeadLinear
from world_model.layers.position_bias import ContinuousPositionBias
from world_model.layers.transformer import SpatioTemporalTransformer, TransformerCache

GRADIENT_SHRINK = 0.1  # share of the gradient that reaches the embeddings; published code, after CogView
MASK_PROBABILITY = (0.5, 1.0)  # drawn per batch, uniformly; Genie, Sec. 2.1


FREE_AFTER_TRAINING = ("token_input_scale", "tdce_weight")
"""Settings that shape no weights: a fine-tuning may change them. All others stay those of the trained model."""


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig:
    dim: int = 512  # paper, Sec. 4
    blocks: int = 12  # paper, Sec. 4
    heads: int = 8  # paper, Sec. 4
    head_dim: int = 64  # paper, Sec. 4
    max_frames: int = 16  # longest clip; paper, Sec. 4
    num_actions: int = 5  # A; RetroAct's platformer control set has five
    # "one_hot": GenieRedux-G, real actions concatenated to the input; "latent": GenieRedux, vectors of D added to it
    conditioning: Literal["one_hot", "latent"] = "one_hot"
    # "input": once, as in the published code; "every_block": before each block, as the paper's Sec. 3 has it
    actions_at: Literal["input", "every_block"] = "input"
    alignment: Literal["shifted", "aligned"] = "shifted"  # published code
    token_input_scale: float = 10.0  # of the code vectors added to visible tokens; published code; 0: no token input
    tdce_weight: float = 3.0  # λ of the token distance cross-entropy; published code

    def __post_init__(self) -> None:
        check_positive(self, "dim", "blocks", "heads", "head_dim", "max_frames", "num_actions")
        choices = {
            "conditioning": ("one_hot", "latent"),
            "actions_at": ("input", "every_block"),
            "alignment": ("shifted", "aligned"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"DynamicsConfig: {name} is {getattr(self, name)!r}, allowed: {allowed}")
        for name in ("token_input_scale", "tdce_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"DynamicsConfig: {name} is {getattr(self, name)}, allowed: 0 or more")
        if self.max_frames < 2:
            raise ValueError(f"DynamicsConfig: max_frames is {self.max_frames}, allowed: 2 or more")


class DynamicsOutput(NamedTuple):
    """Result of a training pass."""

    loss: Tensor  # scalar: cross-entropy + λ · token distance
    metrics: dict[str, Tensor]  # scalars without gradient


class Dynamics(nn.Module):
    """Tokens and actions of a clip → logits of its tokens. `grid` is (H, W), `codes` is K."""

    def __init__(self, config: DynamicsConfig, *, grid: tuple[int, int], codes: int) -> None:
        super().__init__()
        self.config, self.grid, self.codes = config, grid, codes
        width = config.dim + (config.num_actions if config.conditioning == "one_hot" else 0)
        self.token_embedding = nn.Embedding(codes + 1, config.dim)  # the last row is the mask
        self.position_embedding = nn.Embedding(config.max_frames * grid[0] * grid[1], config.dim)
        self.spatial_bias = ContinuousPositionBias(grid, config.heads, hidden=config.head_dim)
        self.transformer = SpatioTemporalTransformer(
            dim=width,
            blocks=config.blocks,
            heads=config.heads,
            head_dim=config.head_dim,
            max_frames=config.max_frames,
        )
        self.to_logits = HeadLinear(width, codes)

    @property
    def mask_token(self) -> int:
        """Id of a masked token, K."""
        return self.codes

    def forward(self, tokens_BTHW: Tensor, actions: Tensor, token_vectors_KD: Tensor, *, first: int = 1) -> Tensor:
        """Logits of the tokens of frames first..T−1, [B, T−first, H, W, K].

        Args:
            tokens_BTHW: int64, `mask_token` where unknown. A "shifted" model ignores those of the last frame.
            actions: [B, T−1] int64 ("one_hot") or [B, T−1, D] ("latent"); entry t leads from frame t to t+1.
            token_vectors_KD: `Tokenizer.token_vectors()`, for the token input.
            first: first frame to predict, at least 1.
        """
        return self.to_logits(self.features(tokens_BTHW, actions, token_vectors_KD)[:, first - 1 :])

    def draw_mask(self, tokens_BTHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A training mask [B, T−1, H, W]: all entries True with the same probability, drawn per batch from [0.5, 1]."""
        low, high = MASK_PROBABILITY
        probability = low + (high - low) * torch.rand((), generator=generator, device=tokens_BTHW.device)
        shape = tokens_BTHW[:, 1:].shape
        return torch.rand(shape, generator=generator, device=tokens_BTHW.device) < probability

    def loss(
        self,
        tokens_BTHW: Tensor,
        actions: Tensor,
        mask_BTHW: Tensor,
        *,
        token_vectors_KD: Tensor,
        code_vectors_KC: Tensor,
    ) -> DynamicsOutput:
        """Training loss: cross-entropy + λ · token distance, means over the masked positions.

        For a "shifted" model, `mask_BTHW` [B, T−1, H, W] hides tokens of frames 0..T−2, and the next frame's token at
        each hidden position is scored, as published. For an "aligned" model, it hides tokens of frames 1..T−1, and
        these are scored.
        """
        hidden, first, last = self.mask_token, tokens_BTHW[:, :1], tokens_BTHW[:, -1:]
        if self.config.alignment == "shifted":
            visible_BTHW = torch.cat([tokens_BTHW[:, :-1].masked_fill(mask_BTHW, hidden), last], dim=1)
        else:
            visible_BTHW = torch.cat([first, tokens_BTHW[:, 1:].masked_fill(mask_BTHW, hidden)], dim=1)
        features_BTHWE = self.features(visible_BTHW, actions, token_vectors_KD)
        logits_MK = self.to_logits(features_BTHWE[mask_BTHW])
        targets_M = tokens_BTHW[:, 1:][mask_BTHW]
        log_probs_MK = logits_MK.float().log_softmax(dim=-1)
        target_log_probs_M = log_probs_MK.gather(-1, targets_M[:, None])[:, 0]
        cross_entropy = loss = -target_log_probs_M.mean()
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.tdce_weight > 0):
            token_distance = expected_code_distance(log_probs_MK.exp(), targets_M, code_vectors_KC).mean()
        if self.config.tdce_weight:
            loss = cross_entropy + self.config.tdce_weight * token_distance
        metrics = {
            "loss": loss.detach(),
            "cross_entropy": cross_entropy.detach(),
            "token_distance": token_distance.detach(),
            "accuracy": (target_log_probs_M == log_probs_MK.amax(dim=-1)).float().mean(),
        }
        return DynamicsOutput(loss, metrics)

    def features(self, tokens_BTHW: Tensor, actions: Tensor, token_vectors_KD: Tensor) -> Tensor:
        """Stream after the transformer, from which frames 1..T−1 are predicted: [B, T−1, H, W, E].

        Arguments as in `forward`.
        """
        check_length(tokens_BTHW.shape[1], self.config.max_frames)
        table_KD, bias_hNN = self.token_inputs(token_vectors_KD), self.spatial_bias()
        if self.config.alignment == "shifted":
            tokens_BTHW = tokens_BTHW[:, :-1]
        x_BTHWE = self.stream(tokens_BTHW, self.conditions(actions), table_KD, bias_hNN)
        return x_BTHWE if self.config.alignment == "shifted" else x_BTHWE[:, 1:]

    def stream(
        self,
        tokens_BTHW: Tensor,
        conditions_BTE: Tensor,
        token_inputs_KD: Tensor,
        spatial_bias_hNN: Tensor,
        *,
        cache: TransformerCache | None = None,
        start: int = 0,
    ) -> Tensor:
        """The transformer's output for input frames `start`.. of a clip, [B, T, H, W, E].

        Args:
            tokens_BTHW: tokens of these frames.
            conditions_BTE: their `conditions`.
            token_inputs_KD: `token_inputs`.
            spatial_bias_hNN: `spatial_bias()`.
            cache: the earlier frames; these are added to it.
            start: position of the first of these frames.
        """
        conditions_BTHWE = conditions_BTE[:, :, None, None].expand(-1, -1, *self.grid, -1)

        def join(x: Tensor) -> Tensor:
            if self.config.conditioning == "latent":
                return x + conditions_BTHWE.to(x.dtype)
            return torch.cat([x[..., : self.config.dim], conditions_BTHWE.to(x.dtype)], dim=-1)

        every_block = self.config.actions_at == "every_block"
        x_BTHWD = self.embed(tokens_BTHW, token_inputs_KD, start)
        # The first block is one of them: latent vectors added here as well would count twice in it.
        added_later = every_block and self.config.conditioning == "latent"
        return self.transformer(
            x_BTHWD if added_later else join(x_BTHWD),
            spatial_bias_hNN,
            before_block=join if every_block else None,
            cache=cache,
            start=start,
        )

    def conditions(self, actions: Tensor) -> Tensor:
        """The action input of each input frame, [B, T', A] or [B, T', D]. A "shifted" model has T' = T−1 frames, each
        with the action that follows it; an "aligned" one T' = T, each with the action that led to it (zeros for the
        first). Arguments as in `forward`."""
        if self.config.conditioning == "one_hot":
            actions = F.one_hot(actions, self.config.num_actions).to(self.to_logits.weight.dtype)
        return actions if self.config.alignment == "shifted" else F.pad(actions, (0, 0, 1, 0))

    def token_inputs(self, token_vectors_KD: Tensor) -> Tensor:
        """What is added to the embedding of each token, [K+1, D]: its scaled code vector; zeros for the mask."""
        return F.pad(token_vectors_KD * self.config.token_input_scale, (0, 0, 0, 1))

    def embed(self, tokens_BTHW: Tensor, token_inputs_KD: Tensor, start: int) -> Tensor:
        """Token + position embeddings with shrunk gradient, and the token input: [B, T, H, W, D]."""
        height, width = self.grid
        first, last = (time * height * width for time in (start, start + tokens_BTHW.shape[1]))
        positions_THWD = rearrange(
            self.position_embedding.weight[first:last], "(t h w) d -> t h w d", h=height, w=width
        )
        x_BTHWD = self.token_embedding(tokens_BTHW) + positions_THWD
        x_BTHWD = x_BTHWD * GRADIENT_SHRINK + x_BTHWD.detach() * (1 - GRADIENT_SHRINK)
        if self.config.token_input_scale:
            x_BTHWD = x_BTHWD + F.embedding(tokens_BTHW, token_inputs_KD)
        return x_BTHWD


def expected_code_distance(probs_MK: Tensor, targets_M: Tensor, codes_KC: Tensor) -> Tensor:
    """Σ_k p_mk · d(k, target_m) with d the cosine distance between codes, [M] in [0, 2] (TDCE; CVPR paper, Sec. 3).

    The distance is linear in the unit code: Σ_k p_k (1 − ê_k·ê) = 1 − (Σ_k p_k ê_k)·ê, so no K×K table is needed.
    A zero vector has no direction; it counts as orthogonal to every code.
    """
    unit_KC = F.normalize(codes_KC, dim=-1)
    return 1 - ((probs_MK @ unit_KC) * unit_KC[targets_M]).sum(dim=-1)
