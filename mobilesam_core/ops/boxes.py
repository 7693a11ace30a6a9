"""Boxes: ``(x1, y1, x2, y2)`` in pixels, left and top edge inclusive, right and bottom edge exclusive.

A box of one pixel at the origin is ``(0, 0, 1, 1)``: edges, not pixel centres, so width is ``x2 - x1``.
COCO's ``[x, y, width, height]`` names the same edges.
"""

from __future__ import annotations

import numpy as np


def mask_box(mask: np.ndarray) -> np.ndarray:
    """``(4,)`` float32 box of a ``(H, W)`` mask; zeros when it is empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return np.zeros(4, np.float32)
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def clip_boxes(boxes: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    """``(N, 4)`` boxes cut to ``window``; one that lies outside gets no width or no height."""
    x1, y1, x2, y2 = window
    return np.clip(boxes, [x1, y1, x1, y1], [x2, y2, x2, y2]).astype(np.float32)


def boxes_inside(boxes: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    """``(N,)`` bool: which of ``(N, 4)`` boxes lie in ``window`` whole."""
    x1, y1, x2, y2 = window
    return np.asarray(((boxes[:, :2] >= (x1, y1)) & (boxes[:, 2:] <= (x2, y2))).all(axis=1))


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """``(N,)`` float32 areas of ``(N, 4)`` boxes."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
