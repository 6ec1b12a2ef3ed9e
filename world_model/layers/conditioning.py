"""How an action enters the stream of a transformer. Axes: B batch, T frames, H W token grid, E width of the stream."""

from typing import Literal

import torch
from torch import Tensor

# "one_hot": concatenated, as published; "embedding": a learned vector is added; "scale": it scales and shifts each
# dimension (adaptive norm, as in DIAMOND, arXiv 2405.12399); "latent": GenieRedux, vectors of latent actions are added
Conditioning = Literal["one_hot", "embedding", "scale", "latent"]


def condition(x_BTHWE: Tensor, given_BTE: Tensor, conditioning: Conditioning) -> Tensor:
    """The stream with each frame's action, [B, T, H, W, E]; "one_hot": [B, T, H, W, E + A].

    `given_BTE` is the action: a one-hot vector of A, a vector of E, or one of 2 E for "scale".
    """
    given_BTHWE = given_BTE[:, :, None, None].to(x_BTHWE.dtype)
    if conditioning == "one_hot":
        return torch.cat([x_BTHWE, given_BTHWE.expand(*x_BTHWE.shape[:-1], -1)], dim=-1)
    if conditioning == "scale":
        scale, shift = given_BTHWE.chunk(2, dim=-1)
        return x_BTHWE * (1 + scale) + shift
    return x_BTHWE + given_BTHWE
