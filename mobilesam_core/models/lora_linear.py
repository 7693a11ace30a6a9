"""A linear layer with a low-rank adapter (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LoraLinear(nn.Linear):
    """A linear layer and its adapter: ``x Wᵀ + b + alpha / rank * x Aᵀ Bᵀ``.

    A ``(rank, in)`` starts random and B ``(out, rank)`` at zero, so that the layer starts as what it was. ``weight``
    and ``bias`` are those of ``base`` themselves, under the names they had.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__(base.in_features, base.out_features, base.bias is not None, device="meta")
        self.weight, self.bias = base.weight, base.bias
        self.alpha = alpha
        self.lora_a = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.alpha / len(self.lora_a) * F.linear(x, self.lora_a)
        return super().forward(x) + F.linear(narrow, self.lora_b)

    @property
    def matrix(self) -> Tensor:
        """``(out, in)``, the weight of a plain layer that does the same, with gradients."""
        return self.weight + low_rank_change(self.lora_a, self.lora_b, self.alpha)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """A plain layer that does the same."""
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        plain.weight, plain.bias = nn.Parameter(self.matrix, requires_grad=False), self.bias
        return plain.train(self.training)


def low_rank_change(a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """What an adapter adds to its layer's weight, ``(out, in)``, of A ``(rank, in)`` and B ``(out, rank)``."""
    return alpha / len(a) * (b @ a)


def matrix_of(layer: nn.Linear) -> Tensor:
    """The ``(out, in)`` matrix that ``layer`` multiplies with, its adapter included."""
    return layer.matrix if isinstance(layer, LoraLinear) else layer.weight
