"""The loss that teaches the model how good its own masks are."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor


def iou_loss(predicted: Tensor, actual: Tensor, kind: Literal["mse", "smooth_l1", "l1"] = "mse") -> Tensor:
    """Distance of the predicted IoU to the actual one, elementwise.

    The prediction is used raw, as at inference; a sigmoid here would train another function than the one used.
    """
    if kind == "mse":
        return F.mse_loss(predicted, actual, reduction="none")
    if kind == "smooth_l1":
        return F.smooth_l1_loss(predicted, actual, reduction="none")
    return F.l1_loss(predicted, actual, reduction="none")
