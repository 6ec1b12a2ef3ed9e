"""Exact decoding without recomputation: every final frame goes through the dynamics once.

Nothing at frame t depends on frames after t (see transformer.py), so the transformer's results for past frames can be
cached. A refinement step then computes only the frames being refined, and the cost of T frames grows with T.

Axes: B batch, T frames, H W token grid, D width, E width of the stream, K codes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from world_model.dynamics import Dynamics
from world_model.frozen import FrozenDynamics, current_autocast
from world_model.layers.checks import check_length
from world_model.layers.patches import from_patches, to_uint8
from world_model.layers.transformer import TransformerCache
from world_model.tokenizer import Tokenizer


class CachedPredictor:
    """A `maskgit.Predict` with the same logits as `Dynamics.forward`, for one growing clip.

    Created under autocast, it computes in that type throughout, but for the logits, which are in the weights' own.

    Args:
        dynamics: the model.
        token_vectors_KD: `Tokenizer.token_vectors()`.
        actions: [B, T−1] int64 or [B, T−1, D], those known so far; `add_actions` appends more.
        guidance: w ≥ 0; the logits become l + w · (l − l without actions) (classifier-free guidance, Ho and Salimans,
            2022, arXiv 2207.12598). It takes a model trained with `action_dropout`, and twice the time.
    """

    @torch.no_grad()
    def __init__(self, dynamics: Dynamics, token_vectors_KD: Tensor, actions: Tensor, *, guidance: float = 0.0) -> None:
        if guidance and not dynamics.config.action_dropout:
            raise ValueError(f"guidance is {guidance}, allowed for a model trained without action_dropout: 0")
        self._guidance = guidance
        self._dynamics = FrozenDynamics(dynamics, token_vectors_KD)
        self.restart(actions)

    def restart(self, actions: Tensor) -> None:
        """Starts another clip."""
        self._cache = self._dynamics.new_cache()
        self._actions = actions  # below, clips with their actions are followed by the same without, if guided
        self._kept = 0  # frames that are final and in the cache
        self._next_logits_BTHWK: Tensor | None = None  # of the next frame, if the kept ones predict it ("shifted")

    def add_actions(self, actions: Tensor) -> None:
        """Appends the actions that lead to further frames."""
        self._actions = torch.cat([self._actions, actions], dim=1)

    def replace_actions(self, actions: Tensor) -> None:
        """Takes other actions; those that lead to final frames must be the same. Not with a "shifted" model, whose last
        final frame holds the action that leads to the next."""
        assert self._dynamics.config.alignment == "aligned"
        self._actions = actions

    @torch.no_grad()
    def __call__(self, tokens_BTHW: Tensor, first: int) -> Tensor:
        """Logits of the tokens of frames first..T−1, [B, T−first, H, W, K]; frames before `first` are final."""
        if not self._guidance:
            return self._logits(tokens_BTHW, self._actions, first)
        given_B = torch.ones(len(tokens_BTHW), dtype=torch.bool, device=tokens_BTHW.device)
        logits_BTHWK, free_BTHWK = self._logits(
            tokens_BTHW.repeat(2, 1, 1, 1), torch.cat([self._actions] * 2), first, torch.cat([given_B, ~given_B])
        ).chunk(2)
        return logits_BTHWK + self._guidance * (logits_BTHWK - free_BTHWK)

    def _logits(self, tokens_BTHW: Tensor, actions: Tensor, first: int, given_B: Tensor | None = None) -> Tensor:
        """As the call; actions count where `given_B` is True."""
        dynamics, shifted = self._dynamics, self._dynamics.config.alignment == "shifted"
        frames = tokens_BTHW.shape[1]
        assert first >= self._kept, "a final frame stays final"
        check_length(frames, dynamics.config.max_frames)
        inputs = frames - 1 if shifted else frames
        if self._kept == inputs:  # the next frame depends on final ones only, and no other is refined
            assert self._next_logits_BTHWK is not None
            return self._next_logits_BTHWK
        wanted = first - 1 if shifted else first  # the first input frame whose logits are needed
        x_BTHWE = dynamics.stream(
            tokens_BTHW[:, self._kept : inputs],
            actions[:, : frames - 1],
            given_B=given_B,
            cache=self._cache,
            start=self._kept,
            skipped=max(0, wanted - self._kept),
        )
        logits_BTHWK = dynamics.logits(x_BTHWE)
        if shifted:
            if self._kept == first:
                assert self._next_logits_BTHWK is not None
                logits_BTHWK = torch.cat([self._next_logits_BTHWK, logits_BTHWK], dim=1)
            self._next_logits_BTHWK = logits_BTHWK[:, :1]
        self._kept = first
        return logits_BTHWK


class CachedDecoder:
    """Tokens → frames as `Tokenizer.decode`, for one growing clip: each call takes the tokens of its next frames.

    Created under autocast, it computes under it.
    """

    @torch.no_grad()
    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._vectors_KD, self._spatial_bias_hNN = tokenizer.token_vectors(), tokenizer.spatial_bias()
        self._autocast = current_autocast(self._vectors_KD.device)
        self._cache = TransformerCache(tokenizer.decoder, tokenizer.config.max_frames)
        self._decoded = 0

    @torch.no_grad()
    def __call__(self, tokens_BTHW: Tensor) -> Tensor:
        """uint8 frames [B, T, H, W, C] of the tokens of the clip's next T frames."""
        with self._autocast:
            patches_BTHWP = self._tokenizer.decode_vectors(
                F.embedding(tokens_BTHW, self._vectors_KD),
                self._spatial_bias_hNN,
                cache=self._cache,
                start=self._decoded,
            )
        self._decoded += tokens_BTHW.shape[1]
        return to_uint8(from_patches(patches_BTHWP, self._tokenizer.config.patch_size))
