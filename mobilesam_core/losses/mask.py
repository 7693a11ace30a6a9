"""Losses between mask logits and targets; one value a mask, never averaged over the batch.

Shapes: logits ``(..., H, W)`` of any real value, targets ``(..., H, W)`` in [0, 1] (1 inside; fractions where a
cell is partly covered). All return ``(...)``.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def bce_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, mean over pixels."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=(-2, -1))


def focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sigmoid focal loss, mean over pixels (Lin et al., "Focal Loss for Dense Object Detection", 2017).

    The modulating factor of a soft target is ``|target - p|^gamma``, which equals the paper's for 0 and 1.
    """
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    missed = (targets - logits.sigmoid()).abs()
    balance = alpha * targets + (1 - alpha) * (1 - targets)
    return (balance * missed.pow(gamma) * cross_entropy).mean(dim=(-2, -1))


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """``1 - (2·|P∩T| + 1) / (|P| + |T| + 1)`` on probabilities; the ones keep an empty pair at 0."""
    probabilities = logits.sigmoid()
    overlap = (probabilities * targets).sum(dim=(-2, -1))
    total = probabilities.sum(dim=(-2, -1)) + targets.sum(dim=(-2, -1))
    return 1 - (2 * overlap + 1) / (total + 1)
