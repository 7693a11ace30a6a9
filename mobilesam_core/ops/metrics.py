"""How well one mask matches another.

Two empty masks agree, so every measure of theirs is 1.
"""

from __future__ import annotations

from typing import Any, TypeVar

import cv2
import numpy as np

from mobilesam_core.ops.boxes import box_areas, mask_box

BOUNDARY_DILATION = 0.02
"""Width of a boundary as a share of the image diagonal (Cheng et al. 2021)."""


_Masks = TypeVar("_Masks", bound=Any)


def mask_iou(masks: _Masks, targets: _Masks) -> _Masks:
    """Intersection over union of bool masks ``(..., H, W)``, leading axes broadcast: ``(...)``.

    Arrays and tensors alike, as what they are given.
    """
    shared = (masks & targets).sum((-2, -1))
    union = masks.sum((-2, -1)) + targets.sum((-2, -1)) - shared
    empty = union == 0
    return (shared + empty) / (union + empty)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of the angle between two arrays, taken as vectors."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(x @ y / max(np.linalg.norm(x) * np.linalg.norm(y), 1e-30))


def dice_from_iou(iou: float) -> float:
    """The Dice coefficient of two masks of known IoU: each determines the other."""
    return 2 * iou / (1 + iou)


def boundary_iou(mask: np.ndarray, target: np.ndarray, shape: tuple[int, int] | None = None) -> float:
    """IoU of the inner boundaries of two ``(H, W)`` bool masks.

    The boundary is what an erosion by ``d`` pixels takes away, where ``d`` is 2 % of the image's diagonal and
    at least 1; beyond the image's border is background (Cheng et al., "Boundary IoU", 2021).

    shape: of the image that the masks are a part of (None: they are of all of it).
    """
    width = boundary_width(*(shape or target.shape))
    x1, y1, x2, y2 = mask_box(mask | target).astype(int)
    if x1 == x2:
        return 1.0
    # Both masks are empty outside their common box, so nothing is lost by looking only there.
    predicted, wanted = (_boundary(m[y1:y2, x1:x2], width) for m in (mask, target))
    return float((predicted & wanted).sum() / (predicted | wanted).sum())


def boundary_width(height: int, width: int) -> int:
    """Width in pixels of the boundary in an image of this size."""
    return max(1, round(BOUNDARY_DILATION * float(np.hypot(height, width))))


def fill_box_iou(areas: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """IoU of the trivial answer, all of the box: ``(N,)``, of ``(N,)`` pixel counts and tight ``(N, 4)`` boxes."""
    return np.asarray(areas / box_areas(boxes), np.float64)


def _boundary(mask: np.ndarray, width: int) -> np.ndarray:
    framed = np.pad(mask.astype(np.uint8), 1)
    eroded = cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=width)
    return mask & (eroded[1:-1, 1:-1] == 0)
