"""Embeddings whose first values are as large as the model wants them."""

import torch
from torch import nn


def scaled_embedding(rows: int, dim: int, std: float) -> nn.Embedding:
    """A table of vectors [rows, dim], normally distributed at first."""
    embedding = nn.Embedding(rows, dim)
    with torch.no_grad():
        embedding.weight.mul_(std)
    return embedding
