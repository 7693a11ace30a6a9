"""Norms of channels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm2d(nn.LayerNorm):
    """Normalises the channels of each place of ``(B, C, H, W)``."""

    def forward(self, x: Tensor) -> Tensor:
        places = x.permute(0, 2, 3, 1)
        return F.layer_norm(places, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)
