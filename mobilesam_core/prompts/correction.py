"""Where an annotator would click next: the middle of the largest mistake."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from mobilesam_core.prompts.sampling import center_point
from mobilesam_core.prompts.types import NEGATIVE, POSITIVE


class Click(NamedTuple):
    """A pixel ``(x, y)`` of the image and its label: :data:`POSITIVE` adds, :data:`NEGATIVE` takes away."""

    point: tuple[float, float]
    label: int


class _Region(NamedTuple):
    area: int
    mask: np.ndarray
    x: int
    y: int


def next_click(target: np.ndarray, prediction: np.ndarray | None = None) -> Click | None:
    """The click that corrects ``prediction`` most, or None when it equals ``target``.

    It lies in the largest connected (8 neighbours) region that is missing or too much, at the point farthest
    from the region's edge, where the image's border counts as edge. A missing region wins a tie.

    target, prediction: ``(H, W)`` bool; without a prediction the click is the object's first.
    """
    if prediction is None:
        prediction = np.zeros_like(target)
    missing = _largest_region(target & ~prediction)
    excess = _largest_region(prediction & ~target)
    label, region = (POSITIVE, missing) if missing.area >= excess.area else (NEGATIVE, excess)
    if region.area == 0:
        return None
    x, y = center_point(region.mask)
    return Click((x + region.x, y + region.y), label)


def _largest_region(mask: np.ndarray) -> _Region:
    """The largest connected region, cropped to its box, which lies at ``(x, y)``."""
    _, regions, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if len(stats) < 2:
        return _Region(0, mask, 0, 0)
    best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    x, y, width, height, area = (int(value) for value in stats[best])
    return _Region(area, regions[y : y + height, x : x + width] == best, x, y)
