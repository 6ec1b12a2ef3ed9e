"""Dynamics: a MaskGIT transformer that predicts the next frames' tokens from past tokens and actions.

Alignments. As published ("shifted", Genie), the output at frame t is the logits of frame t+1, so the inputs are frames
0..T−2 and actions 0..T−2. In "aligned" (ours), the output at frame t is the logits of frame t itself: the inputs are
its masked tokens and action t−1, which led to it, so a frame's revealed tokens refine its other ones.

Sources: GenieRedux-G (Savov et al., CVPR 2025, arXiv 2504.02515, Secs. 3–4: token input, TDCE), Genie (Bruce et al.,
2024, arXiv 2402.15391, Sec. 2.1), MaskGIT (Chang et al., 2022, arXiv 2202.04200), and the released implementation.

Axes: B batch, T frames, H W token grid, N = H·W, D width of embeddings, E width of the stream, A actions, K codes,
C dimensions of a code, M masked positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from world_model.layers.action_head import ActionHead
from world_model.layers.checks import check_choices, check_length, check_not_negative, check_positive, check_shares
from world_model.layers.conditioning import Conditioning, condition
from world_model.layers.embedding import scaled_embedding
from world_model.layers.head import HeadLinear, LevelsHead
from world_model.layers.position_bias import ContinuousPositionBias
from world_model.layers.transformer import SpatioTemporalTransformer, TransformerCache
from world_model.objective import DynamicsOutput, draw_mask, hide_past, replace_some, token_loss

GRADIENT_SHRINK = 0.1  # share of the gradient that reaches the embeddings; published code, after CogView
PAST = ("hidden_past", "past_noise", "self_decoded")
SCALES = ("embedding_std", "token_input_scale", "tdce_weight", "changed_weight")
FREE_AFTER_TRAINING = ("masking", "action_dropout", *PAST, *SCALES)
"""Settings that shape no weights: a fine-tuning may change them. All others stay those of the trained model."""


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig:
    """Defaults: the paper's sizes, and what obeys best at equal time (experiments/ablations/control.md)."""

    dim: int = 512  # paper, Sec. 4
    blocks: int = 12  # paper, Sec. 4
    heads: int = 8  # paper, Sec. 4
    head_dim: int = 64  # paper, Sec. 4
    max_frames: int = 16  # longest clip; paper, Sec. 4
    num_actions: int = 5  # A; RetroAct's platformer control set has five
    conditioning: Conditioning = "embedding"  # how an action enters; published: "one_hot"
    # "input": once, as in the published code; "every_block": before each block, as the paper's Sec. 3 has it
    actions_at: Literal["input", "every_block"] = "every_block"
    alignment: Literal["shifted", "aligned"] = "aligned"  # published: "shifted"
    head: Literal["codes", "levels"] = "levels"  # published: "codes"; "levels" is for FSQ, see layers/head.py
    embedding_std: float = 0.1  # of tokens' and positions' vectors at first; published: 1
    # What training hides, see `loss`. "clip": published; "auto": "paired" if aligned, as the others ask, or else "clip"
    masking: Literal["auto", "clip", "frame", "paired"] = "auto"
    changed_weight: float = 4.0  # additional weight of tokens that differ from the last frame's; published: 0
    # If "paired": share of clips whose known frames are hidden from one on, as in one-go decoding and in rewards;
    # up to which share of a known frame's tokens is replaced at random
    hidden_past: float = 0.25
    past_noise: float = 0.0
    # Share of clips of which each known frame is, with probability 1/2, the model's own prediction, if "paired" (after
    # Self Forcing, arXiv 2506.08009; here in one decoding step, without gradient)
    self_decoded: float = 0.0
    inverse_weight: float = 0.0  # of telling the action from a predicted frame, if "paired": action_head.py
    action_dropout: float = 0.0  # share of clips that are trained without actions, for guidance in decoding
    token_input_scale: float = 10.0  # of the code vectors added to visible tokens; published code; 0: no token input
    tdce_weight: float = 0.0  # λ of the token distance cross-entropy; published: 3

    def __post_init__(self) -> None:
        check_positive(self, "dim", "blocks", "heads", "head_dim", "max_frames", "num_actions")
        check_choices(self)
        if self.masking == "auto":
            object.__setattr__(self, "masking", "paired" if self.alignment == "aligned" else "clip")
        check_not_negative(self, *SCALES, "inverse_weight")
        check_shares(self, *PAST, "action_dropout")
        if self.inverse_weight and self.conditioning == "latent":
            raise ValueError("DynamicsConfig: conditioning is 'latent', allowed with inverse_weight: any other")
        if self.masking != "clip" and self.alignment != "aligned":
            raise ValueError(
                f"DynamicsConfig: masking is {self.masking!r} and alignment {self.alignment!r}, "
                "allowed with it: 'aligned'"
            )
        for name in ("past_noise", "self_decoded", "inverse_weight"):
            if getattr(self, name) and self.masking != "paired":
                raise ValueError(
                    f"DynamicsConfig: {name} is {getattr(self, name)} and masking {self.masking!r}, "
                    "allowed with it: 'paired'"
                )
        if self.max_frames < 2:
            raise ValueError(f"DynamicsConfig: max_frames is {self.max_frames}, allowed: 2 or more")


class Dynamics(nn.Module):
    """Tokens and actions of a clip → logits of its tokens. `grid` is (H, W), `codes` is K, `levels` FSQ's."""

    def __init__(
        self, config: DynamicsConfig, *, grid: tuple[int, int], codes: int, levels: Sequence[int] = ()
    ) -> None:
        super().__init__()
        self.config, self.grid, self.codes = config, grid, codes
        width = config.dim + (config.num_actions if config.conditioning == "one_hot" else 0)  # of the stream
        positions, std = config.max_frames * grid[0] * grid[1], config.embedding_std
        self.token_embedding = scaled_embedding(codes + 1, config.dim, std)  # the last row is the mask
        self.position_embedding = scaled_embedding(positions, config.dim, std)
        self.spatial_bias = ContinuousPositionBias(grid, config.heads, hidden=config.head_dim)
        self.transformer = SpatioTemporalTransformer(
            dim=width, blocks=config.blocks, heads=config.heads, head_dim=config.head_dim, max_frames=config.max_frames
        )
        self.to_logits = LevelsHead(width, levels) if config.head == "levels" else HeadLinear(width, codes)
        if config.inverse_weight:
            self.action_head = ActionHead(grid, codes, config.num_actions)
        places = config.blocks if config.actions_at == "every_block" else 1
        if config.conditioning == "embedding":
            self.action_vectors_XAE = nn.Parameter(torch.randn(places, config.num_actions, config.dim))
        elif config.conditioning == "scale":
            self.action_vectors_XAE = nn.Parameter(0.1 * torch.randn(places, config.num_actions, 2 * config.dim))

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
        return self.to_logits(self.features(tokens_BTHW, actions, token_vectors_KD, first=first))

    def draw_mask(self, tokens_BTHW: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A training mask [B, T−1, H, W] for clips of tokens; see `objective.draw_mask`."""
        return draw_mask(tokens_BTHW[:, 1:], self.config.masking, generator)  # type: ignore[arg-type]  # never "auto"

    def loss(
        self,
        tokens_BTHW: Tensor,
        actions: Tensor,
        mask_BTHW: Tensor,
        *,
        token_vectors_KD: Tensor,
        distance_vectors_KC: Tensor,
        generator: torch.Generator | None = None,
    ) -> DynamicsOutput:
        """Training loss: cross-entropy + λ · token distance, means over the masked positions.

        For a "shifted" model, `mask_BTHW` [B, T−1, H, W] hides tokens of frames 0..T−2, and the next frame's token at
        each hidden position is scored, as published. For an "aligned" model, it hides tokens of frames 1..T−1, and
        these are scored: with "paired" masking, each frame is predicted from its own visible tokens and a full past,
        as MAGI (arXiv 2501.12389, Sec. 3) does. A token that differs from the last frame's weighs 1 + `changed_weight`.
        """
        config, hidden = self.config, self.mask_token
        kept_B = None
        if config.action_dropout:
            drawn_B = torch.rand(len(tokens_BTHW), generator=generator, device=tokens_BTHW.device)
            kept_B = drawn_B >= config.action_dropout
        conditions_BTE = self.conditions(actions, kept_B)
        first, targets_BTHW = tokens_BTHW[:, :1], tokens_BTHW[:, 1:]
        inputs = self.token_inputs(token_vectors_KD), self.spatial_bias()
        if config.masking == "paired":
            known_BTHW = replace_some(tokens_BTHW[:, :-1], config.past_noise, self.codes, generator)
            if config.self_decoded:
                known_BTHW = self.own_past(known_BTHW, conditions_BTE, *inputs, generator)
            known_BTHW = hide_past(known_BTHW, config.hidden_past, hidden, generator)
            pairs_BTHW = torch.cat([known_BTHW, targets_BTHW.masked_fill(mask_BTHW, hidden)])
            features_BTHWE = self.stream(pairs_BTHW, conditions_BTE, *inputs, paired=True)
        elif config.alignment == "aligned":
            visible_BTHW = torch.cat([first, targets_BTHW.masked_fill(mask_BTHW, hidden)], dim=1)
            features_BTHWE = self.stream(visible_BTHW, conditions_BTE, *inputs)[:, 1:]
        else:
            visible_BTHW = tokens_BTHW[:, :-1].masked_fill(mask_BTHW, hidden)
            features_BTHWE = self.stream(visible_BTHW, conditions_BTE, *inputs)
        logits_MK = self.to_logits(features_BTHWE[mask_BTHW])
        output = token_loss(
            logits_MK,
            targets_BTHW[mask_BTHW],
            (targets_BTHW != tokens_BTHW[:, :-1])[mask_BTHW],
            distance_vectors_KC=distance_vectors_KC,
            tdce_weight=config.tdce_weight,
            changed_weight=config.changed_weight,
        )
        if not config.inverse_weight:
            return output
        own, inverse = self.action_head.losses(tokens_BTHW, actions, mask_BTHW, logits_MK, kept_B)
        losses = {"inverse_true": own.detach(), "inverse_predicted": inverse.detach()}
        return DynamicsOutput(output.loss + own + config.inverse_weight * inverse, output.metrics | losses)

    def features(self, tokens_BTHW: Tensor, actions: Tensor, token_vectors_KD: Tensor, *, first: int = 1) -> Tensor:
        """Stream after the transformer, from which frames first..T−1 are predicted: [B, T−first, H, W, E].

        Arguments as in `forward`.
        """
        check_length(tokens_BTHW.shape[1], self.config.max_frames)
        table_KD, bias_hNN = self.token_inputs(token_vectors_KD), self.spatial_bias()
        if self.config.alignment == "shifted":
            tokens_BTHW, first = tokens_BTHW[:, :-1], first - 1
        return self.stream(tokens_BTHW, self.conditions(actions), table_KD, bias_hNN, skipped=first)

    def stream(
        self,
        tokens_BTHW: Tensor,
        conditions_BTE: Tensor,
        token_inputs_KD: Tensor,
        spatial_bias_hNN: Tensor,
        *,
        cache: TransformerCache | None = None,
        start: int = 0,
        paired: bool = False,
        skipped: int = 0,
    ) -> Tensor:
        """The transformer's output for input frames `start`.. of a clip, [B, T − skipped, H, W, E].

        Args:
            tokens_BTHW: tokens of these frames; if paired, [2B, T−1, H, W]: of frames 0..T−2, then of frames 1..T−1.
            conditions_BTE: their `conditions`; if paired, of frames 0..T−1.
            token_inputs_KD, spatial_bias_hNN: `token_inputs`, `spatial_bias()`.
            cache, start, paired, skipped: see `SpatioTemporalTransformer.forward`.
        """
        config = self.config
        if paired:
            clips = zip(tokens_BTHW.chunk(2), (start, start + 1), strict=True)
            x_BTHWD = torch.cat([self.embed(tokens, token_inputs_KD, first) for tokens, first in clips])
            conditions_BTE = torch.cat([conditions_BTE[:, :-1], conditions_BTE[:, 1:]])
        else:
            x_BTHWD = self.embed(tokens_BTHW, token_inputs_KD, start)

        def before_block(x: Tensor, block: int) -> Tensor:
            if block and config.actions_at == "input":
                return x
            given_BTE = conditions_BTE
            if config.conditioning in ("embedding", "scale"):
                given_BTE = given_BTE @ self.action_vectors_XAE[block].to(given_BTE.dtype)
            return condition(x[..., : config.dim], given_BTE, config.conditioning)

        where = {"cache": cache, "start": start, "paired": paired, "skipped": skipped}
        return self.transformer(x_BTHWD, spatial_bias_hNN, before_block=before_block, **where)

    def conditions(self, actions: Tensor, kept_B: Tensor | None = None) -> Tensor:
        """The action input of each input frame, [B, T', A] or [B, T', D]. A "shifted" model has T' = T−1 frames, each
        with the action that follows it; an "aligned" one T' = T, each with the action that led to it (zeros for the
        first). Arguments as in `forward`; where `kept_B` is False, all are zeros: no action is given."""
        if self.config.conditioning != "latent":
            actions = F.one_hot(actions, self.config.num_actions).to(self.to_logits.weight.dtype)
        if kept_B is not None:
            actions = actions * kept_B[:, None, None].to(actions.dtype)
        return actions if self.config.alignment == "shifted" else F.pad(actions, (0, 0, 1, 0))

    def token_inputs(self, token_vectors_KD: Tensor) -> Tensor:
        """What is added to the embedding of each token, [K+1, D]: its scaled code vector; zeros for the mask."""
        return F.pad(token_vectors_KD * self.config.token_input_scale, (0, 0, 0, 1))

    def embed(self, tokens_BTHW: Tensor, token_inputs_KD: Tensor, start: int) -> Tensor:
        """Token + position embeddings with shrunk gradient, and the token input: [B, T, H, W, D]."""
        first = start * self.grid[0] * self.grid[1]
        positions_XD = self.position_embedding.weight[first : first + tokens_BTHW[0].numel()]
        positions_THWD = positions_XD.unflatten(0, tokens_BTHW.shape[1:])
        x_BTHWD = self.token_embedding(tokens_BTHW) + positions_THWD
        x_BTHWD = x_BTHWD * GRADIENT_SHRINK + x_BTHWD.detach() * (1 - GRADIENT_SHRINK)
        if self.config.token_input_scale:
            x_BTHWD = x_BTHWD + F.embedding(tokens_BTHW, token_inputs_KD)
        return x_BTHWD

    @torch.no_grad()
    def own_past(
        self,
        known_BTHW: Tensor,
        conditions_BTE: Tensor,
        token_inputs_KD: Tensor,
        spatial_bias_hNN: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Known frames 0..T−2, some of them (never the first) as the model predicts them from those before.

        In a share `self_decoded` of the clips, each frame is replaced with probability 1/2: what decoding shows a model
        is its own frames.
        """
        clips, frames = known_BTHW.shape[:2]
        drawn_B1 = torch.rand((clips, 1), generator=generator, device=known_BTHW.device) < self.config.self_decoded
        own_BT = drawn_B1 & (torch.rand((clips, frames - 1), generator=generator, device=known_BTHW.device) < 0.5)
        picked = own_BT.any(dim=1).nonzero()[:, 0]
        if not len(picked):
            return known_BTHW
        past_BTHW = known_BTHW[picked]
        pairs_BTHW = torch.cat([past_BTHW[:, :-1], torch.full_like(past_BTHW[:, 1:], self.mask_token)])
        features_BTHWE = self.stream(
            pairs_BTHW, conditions_BTE[picked, :frames], token_inputs_KD, spatial_bias_hNN, paired=True
        )
        predicted_BTHW = self.to_logits(features_BTHWE).argmax(dim=-1)
        known_BTHW = known_BTHW.clone()
        known_BTHW[picked, 1:] = torch.where(own_BT[picked][:, :, None, None], predicted_BTHW, past_BTHW[:, 1:])
        return known_BTHW
