"""Masks in the making: found by a point, measured, not yet known to be the best of their kind."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torchvision.ops import nms

from mobilesam_core.amg.grid import Crop

_EDGE_TOLERANCE = 20.0  # pixels


@dataclass(frozen=True)
class Candidates:
    """M masks of one image or crop, on one device.

    logits: ``(M, h, w)`` low-resolution logits. boxes: ``(M, 4)`` int64 of the first and last pixels, in pixels of the
    crop. areas, predicted_iou, stability: ``(M,)``. points: ``(M,)`` int64 numbers of the points that were asked about.
    """

    logits: Tensor
    boxes: Tensor
    areas: Tensor
    predicted_iou: Tensor
    stability: Tensor
    points: Tensor

    def __len__(self) -> int:
        return len(self.areas)

    def __getitem__(self, chosen: Tensor) -> Candidates:
        """Those of an index or a bool mask."""
        return Candidates(*(getattr(self, field.name)[chosen] for field in fields(self)))


def best_of_each(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices of those that overlap none of a higher score by a box IoU above ``threshold``, best first."""
    kept: Tensor = nms(boxes.float(), scores.float(), threshold)
    return kept


def cut_off(boxes: Tensor, crop: Crop, height: int, width: int) -> Tensor:
    """``(M,)`` bool: the box, in pixels of the crop, ends near an edge of the crop that is no edge of the image.

    Such a mask is part of an object that another crop holds whole.
    """
    x1, y1, _, _ = crop.box
    placed = (boxes + torch.tensor([x1, y1, x1, y1], device=boxes.device)).float()
    at_crop, at_image = (
        (placed - torch.tensor(edges, device=boxes.device)).abs() <= _EDGE_TOLERANCE
        for edges in (crop.box, (0, 0, width, height))
    )
    return (at_crop & ~at_image).any(dim=1)
