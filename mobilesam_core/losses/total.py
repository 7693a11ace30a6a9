"""The weighted sum that training minimises."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobilesam_core.config.loss import LossConfig
from mobilesam_core.losses.iou import iou_loss
from mobilesam_core.losses.mask import bce_loss, dice_loss, focal_loss
from mobilesam_core.ops.metrics import mask_iou


class LossValues(NamedTuple):
    """Means over the objects of a batch: scalars, ``total`` with gradient, the others detached.

    ``iou`` is the IoU of the single-mask output at the loss grid, a metric and no loss.
    """

    total: Tensor
    focal: Tensor
    bce: Tensor
    dice: Tensor
    iou_head: Tensor
    iou: Tensor


class SegLoss(nn.Module):
    """Focal, cross-entropy, Dice and IoU-head loss of the decoder's four outputs.

    Output 0 (single mask) is trained on every object. With ``multimask`` the best of outputs 1 to 3 is trained
    too and the two are averaged: the best is the one with the lowest mask loss, so that three answers to an
    ambiguous prompt can differ (Kirillov et al. 2023, §3). The IoU head learns from all outputs.
    """

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, low_res_logits: Tensor, iou_predictions: Tensor, targets: Tensor) -> LossValues:
        """Compare N objects.

        Args:
            low_res_logits: ``(N, 4, h, w)``.
            iou_predictions: ``(N, 4)``.
            targets: ``(N, L, L)`` in [0, 1]; logits are brought to ``L`` bilinearly when it is another size.
        """
        config = self.config
        outputs = 4 if config.multimask else 1
        # Losses in float32: sums over 256² half-precision pixels would not be exact.
        logits = low_res_logits[:, :outputs].float()
        if logits.shape[-2:] != targets.shape[-2:]:
            logits = F.interpolate(logits, targets.shape[-2:], mode="bilinear", align_corners=False)
        wanted = targets[:, None].expand_as(logits)
        parts = {"dice": dice_loss(logits, wanted)}
        # Each of these costs a pass over all pixels: only those with a weight are computed.
        zero = torch.zeros_like(parts["dice"])
        parts["focal"] = focal_loss(logits, wanted, config.focal_alpha, config.focal_gamma) if config.focal else zero
        parts["bce"] = bce_loss(logits, wanted) if config.bce else zero
        mask_loss = config.focal * parts["focal"] + config.bce * parts["bce"] + config.dice * parts["dice"]

        weights = self._output_weights(mask_loss.detach())
        with torch.no_grad():
            actual_iou = mask_iou(logits > 0, wanted >= 0.5)
        iou_head = iou_loss(iou_predictions[:, :outputs].float(), actual_iou, config.iou_loss).mean(dim=1)
        total = ((weights * mask_loss).sum(dim=1) + config.iou * iou_head).mean()
        means = {name: (weights * value.detach()).sum(dim=1).mean() for name, value in parts.items()}
        return LossValues(total=total, iou_head=iou_head.detach().mean(), iou=actual_iou[:, 0].mean(), **means)

    @staticmethod
    def _output_weights(mask_loss: Tensor) -> Tensor:
        """``(N, outputs)``: how much each output's mask loss counts; rows sum to 1."""
        weights = torch.zeros_like(mask_loss)
        if mask_loss.shape[1] == 1:
            return weights + 1
        weights[:, 0] = 0.5
        best = mask_loss[:, 1:].argmin(dim=1) + 1
        return weights.scatter_(1, best[:, None], 0.5)
