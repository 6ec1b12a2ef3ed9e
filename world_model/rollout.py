"""Interactive play in a world model: frame by frame, without end, many games at once.

Past frames are never recomputed (see cached.py). When a clip is full, its last frames become the prime frames of the
next one, so a rollout has no end.

Source: interactive generation of Genie (Bruce et al., 2024, arXiv 2402.15391, Sec. 2.2); the cache and the sliding clip
are ours.
Axes: B batch, T frames, H W pixels in `frames_BTHWC` and token grid in `tokens_BTHW`, C colour channels, N tokens.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from world_model.cached import CachedDecoder, CachedPredictor
from world_model.genie import GenieRedux, GenieReduxG
from world_model.layers.checks import check_actions
from world_model.maskgit import DecodingConfig, Generators, decode_together
from world_model.uncertainty import token_entropy


class RolloutStep(NamedTuple):
    """One predicted frame of each game."""

    frames_BHWC: Tensor  # uint8
    uncertainty_BN: Tensor  # of the frame's tokens before any was known, in [0, 1] (eq. 3 of the CVPR paper)


class Rollout:
    """A clip that grows by one frame per action.

    Args:
        model: the world model; with a GenieRedux, actions are codes of its latent action model.
        prime_frames_BTHWC: uint8, at least one frame and fewer than the model's longest clip.
        prime_actions_BT: int64 [B, T−1], the actions between them.
        decoding: how a frame is decoded; always one at a time: `mode` and `frames_per_step` are ignored.
        generator: to sample tokens with; one, or one for each game.

    Raises:
        ValueError: frames or actions have the wrong size, type or range.
    """

    _tokens_BTHW: Tensor  # of the current clip
    _decode: CachedDecoder

    def __init__(
        self,
        model: GenieReduxG | GenieRedux,
        prime_frames_BTHWC: Tensor,
        prime_actions_BT: Tensor,
        *,
        decoding: DecodingConfig,
        generator: Generators = None,
    ) -> None:
        self._model, self._decoding, self._generator = model, decoding, generator
        self._longest = model.dynamics.config.max_frames
        if prime_frames_BTHWC.shape[1] >= self._longest:
            raise ValueError(
                f"{prime_frames_BTHWC.shape[1]} prime frames, allowed: 1 to {self._longest - 1} (max_frames − 1)"
            )
        batch, primes = prime_frames_BTHWC.shape[:2]
        check_actions(prime_actions_BT, (batch, primes - 1), model.num_actions)
        self._predict = CachedPredictor(
            model.dynamics,
            model.tokenizer.token_vectors(),
            model.action_inputs(prime_actions_BT),
            guidance=decoding.guidance,
        )
        self._start_clip(prime_frames_BTHWC, prime_actions_BT)

    @torch.no_grad()
    def step(self, actions_B: Tensor) -> RolloutStep:
        """The next frame after each game takes its action, int64 [B]."""
        check_actions(actions_B[:, None], (len(self._tokens_BTHW), 1), self._model.num_actions)
        if self._tokens_BTHW.shape[1] == self._longest:
            kept = self._longest // 2
            actions_BT = torch.cat(self._actions, dim=1)
            self._start_clip(torch.stack(self._frames[-kept:], dim=1), actions_BT[:, actions_BT.shape[1] + 1 - kept :])
        self._predict.add_actions(self._model.action_inputs(actions_B[:, None]))
        first_logits: list[Tensor] = []

        def predict(tokens_BTHW: Tensor, first: int) -> Tensor:
            logits_BTHWK = self._predict(tokens_BTHW, first)
            if not first_logits:
                first_logits.append(logits_BTHWK)
            return logits_BTHWK

        self._tokens_BTHW = decode_together(
            predict,
            self._tokens_BTHW,
            1,
            mask_token=self._model.dynamics.mask_token,
            decoding=self._decoding,
            generator=self._generator,
        )
        frames_BHWC = self._decode(self._tokens_BTHW[:, -1:])[:, 0]
        self._frames.append(frames_BHWC)
        self._actions.append(actions_B[:, None])
        return RolloutStep(frames_BHWC, token_entropy(first_logits[0][:, 0].flatten(1, 2)))

    @torch.no_grad()
    def _start_clip(self, frames_BTHWC: Tensor, actions_BT: Tensor) -> None:
        model = self._model
        self._frames, self._actions = list(frames_BTHWC.unbind(dim=1)), [actions_BT]
        self._tokens_BTHW = model.tokenizer.encode(frames_BTHWC)
        self._predict.restart(model.action_inputs(actions_BT))
        self._decode = CachedDecoder(model.tokenizer)
        self._decode(self._tokens_BTHW)
