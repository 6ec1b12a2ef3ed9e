"""A world model that learns no more, for many questions: what no input changes is computed once.

A copy of the dynamics is made in the type in which they compute; a conversion of each weight for each question would
take its time. What the pre-norm does to attention's queries becomes part of their weights, and so does what a code's
logit shares with its neighbours'. Only rounding differs from the model itself.

Axes: B batch, T frames, H W token grid, N = H·W, D width of embeddings, E width of the stream, K codes.
"""

import copy

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from world_model.dynamics import Dynamics
from world_model.layers.attention import Attention
from world_model.layers.transformer import TransformerCache


def current_autocast(device: torch.device) -> torch.autocast:
    """The autocast that is in force now, to compute under it later."""
    kind = device.type
    return torch.autocast(kind, dtype=torch.get_autocast_dtype(kind), enabled=torch.is_autocast_enabled(kind))


class FrozenDynamics:
    """Dynamics that only predict. Created under autocast, they compute in that type throughout, but for the logits,
    which are in the weights' own.

    Args:
        dynamics: the model; later changes of its weights may not show.
        token_vectors_KD: `Tokenizer.token_vectors()`.
        copied: whether a copy is worth it where the type stays the same, as it is for hundreds of questions.
    """

    @torch.no_grad()
    def __init__(self, dynamics: Dynamics, token_vectors_KD: Tensor, *, copied: bool = False) -> None:
        device, own_dtype = token_vectors_KD.device.type, dynamics.to_logits.weight.dtype
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else own_dtype
        self.config, self.mask_token, self._device = dynamics.config, dynamics.mask_token, device
        self._token_inputs_KD = dynamics.token_inputs(token_vectors_KD).to(dtype)
        self._spatial_bias_hNN = dynamics.spatial_bias().to(dtype)
        with torch.autocast(device, enabled=False):
            self._weight_KE, self._bias_K = dynamics.to_logits.weights()
        if copied or dtype != own_dtype:
            dynamics = copy.deepcopy(dynamics).requires_grad_(False)
            for module in dynamics.modules():
                if isinstance(module, Attention):
                    module.fold_norm()
            dynamics = dynamics.to(dtype)
        self._dynamics = dynamics

    def new_cache(self) -> TransformerCache:
        """A cache for a clip of any length."""
        return TransformerCache(self._dynamics.transformer, self.config.max_frames)

    @torch.no_grad()
    def stream(
        self,
        tokens_BTHW: Tensor,
        actions: Tensor,
        *,
        given_B: Tensor | None = None,
        cache: TransformerCache | None = None,
        start: int = 0,
        skipped: int = 0,
    ) -> Tensor:
        """`Dynamics.stream` for input frames `start`.. of a clip, given all its actions; they count where `given_B`."""
        with torch.autocast(self._device, enabled=False):
            conditions_BTE = self._dynamics.conditions(actions, given_B)[:, start:]
            inputs = self._token_inputs_KD, self._spatial_bias_hNN
            return self._dynamics.stream(
                tokens_BTHW, conditions_BTE, *inputs, cache=cache, start=start, skipped=skipped
            )

    @torch.no_grad()
    def last_features(self, prime_tokens_BTHW: Tensor, actions: Tensor) -> Tensor:
        """`Dynamics.features` of the frame that the last action leads to, [B, N, E]; the frames since the primes are
        hidden."""
        primes, frames = prime_tokens_BTHW.shape[1], actions.shape[1] + 1
        inputs = frames - (self.config.alignment == "shifted")
        tokens_BTHW = F.pad(prime_tokens_BTHW, (0, 0, 0, 0, 0, inputs - primes), value=self.mask_token)
        return rearrange(self.stream(tokens_BTHW, actions, skipped=inputs - 1), "b 1 h w e -> b (h w) e")

    @torch.no_grad()
    def logits(self, features_BXE: Tensor) -> Tensor:
        """[B, ..., E] → [B, ..., K]."""
        with torch.autocast(self._device, enabled=False):
            return F.linear(features_BXE.to(self._weight_KE.dtype), self._weight_KE, self._bias_K)
