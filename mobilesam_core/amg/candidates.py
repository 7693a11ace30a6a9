"""Masks in the making: found by a point, measured, not yet known to be the best of their kind."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from mobilesam_core.amg.grid import Crop
from mobilesam_core.runtime.protocol import Array

_EDGE_TOLERANCE = 20.0  # pixels


@dataclass(frozen=True)
class Candidates:
    """M masks of one image or crop.

    logits: ``(M, h, w)`` low-resolution logits, as the runtime has them. boxes: ``(M, 4)`` int64 of the first and last
    pixels, in pixels of the crop. areas, predicted_iou, stability: ``(M,)``. points: ``(M,)`` int64 numbers of the
    points that were asked about.
    """

    logits: Array
    boxes: np.ndarray
    areas: np.ndarray
    predicted_iou: np.ndarray
    stability: np.ndarray
    points: np.ndarray

    def __len__(self) -> int:
        return len(self.areas)

    def __getitem__(self, chosen: np.ndarray) -> Candidates:
        """Those of an array of indices."""
        return Candidates(*(getattr(self, field.name)[chosen] for field in fields(self)))


def best_of_each(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Indices of those of ``(M, 4)`` boxes that overlap none of a higher score by more than ``threshold``; best first.

    Of equal scores the first counts as the higher. As torchvision's ``nms`` has it, to the bit: overlaps in float32,
    the threshold in float64, which an overlap of 99 in 100 pixels exceeds when the threshold is 0.99.
    """
    exactly = np.float64(threshold)
    corners = boxes.astype(np.float32)
    areas = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    left = np.argsort(-scores.astype(np.float32), kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        sides = np.minimum(corners[left, 2:], corners[best, 2:]) - np.maximum(corners[left, :2], corners[best, :2])
        shared = sides.clip(min=0).prod(axis=1)
        with np.errstate(invalid="ignore"):  # boxes one pixel wide have no area; they overlap nothing
            left = left[~(shared / (areas[left] + areas[best] - shared) > exactly)]
    return np.array(kept, np.int64)


def cut_off(boxes: np.ndarray, crop: Crop, height: int, width: int) -> np.ndarray:
    """``(M,)`` bool: the box, in pixels of the crop, ends near an edge of the crop that is no edge of the image.

    Such a mask is part of an object that another crop holds whole.
    """
    x1, y1, _, _ = crop.box
    placed = boxes + np.array([x1, y1, x1, y1])
    at_crop, at_image = (
        np.abs(placed - np.array(edges)) <= _EDGE_TOLERANCE for edges in (crop.box, (0, 0, width, height))
    )
    return np.asarray((at_crop & ~at_image).any(axis=1))
