"""The last layer of a model, in full precision: logits and pixels are its results, not steps on the way.

bf16 has 8 bits: logits of 10 to 20 would come in steps of 0.06 to 0.12, and pixels near white in steps of 1/256.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HeadLinear(nn.Linear):
    """`nn.Linear` in the type of its weights, also under autocast: [..., D] → [..., out_features]."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return F.linear(input.to(self.weight.dtype), self.weight, self.bias)
