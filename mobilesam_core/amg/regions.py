"""Removing specks and filling pinholes of a mask."""

from __future__ import annotations

import cv2
import numpy as np


def remove_small_regions(mask: np.ndarray, min_area: int) -> tuple[np.ndarray, bool]:
    """A ``(H, W)`` bool mask without holes, then without separate parts, of fewer than ``min_area`` pixels, and
    whether that changed it. Where every part is that small, the largest stays. Diagonal neighbours are connected.
    """
    filled, had_holes = _drop_small(~mask, min_area, keep_largest=False)
    cleaned, had_specks = _drop_small(~filled, min_area, keep_largest=True)
    return cleaned, had_holes or had_specks


def _drop_small(mask: np.ndarray, min_area: int, keep_largest: bool) -> tuple[np.ndarray, bool]:
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = statistics[:, cv2.CC_STAT_AREA]
    kept = areas >= min_area
    kept[0] = False
    if kept[1:].all():
        return mask, False
    if keep_largest and not kept.any():
        kept[1 + areas[1:].argmax()] = True
    return kept[labels], True
