"""Masks as polygons from which :func:`~mobilesam_core.ops.rle.polygons_to_rle` makes the same masks again.

A polygon goes along the edges of pixels: its corners are whole numbers, pixel ``(x, y)`` is the square from there to
``(x + 1, y + 1)``. What lies inside is told by the even-odd rule, so a line that is walked to and fro
changes nothing, and one polygon can hold holes and separate parts.
"""

from __future__ import annotations

import cv2
import numpy as np


def mask_to_polygon(mask: np.ndarray) -> list[float]:
    """One polygon ``[x1, y1, x2, y2, ...]`` of a ``(H, W)`` bool mask that is not empty.

    Holes and parts are joined by lines of no width, each to the nearest corner of what is joined already.
    """
    first, *others = _outlines(mask)
    joined = first
    for outline in others:
        gaps = np.square(joined[:, None] - outline[None]).sum(-1)
        here, there = np.unravel_index(int(gaps.argmin()), gaps.shape)
        # From `here` over, once around and back again; nothing is walked where they touch.
        detour = [np.roll(outline, -there, axis=0), outline[there : there + 1], joined[here : here + 1]]
        around = np.concatenate(detour)[1:-1] if gaps[here, there] == 0 else np.concatenate(detour)
        joined = np.concatenate([joined[: here + 1], around, joined[here + 1 :]])
    flat: list[float] = joined.astype(float).ravel().tolist()
    return flat


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """A polygon for each part (8-connected) of a ``(H, W)`` bool mask; holes are joined to the part they are in."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8))
    return [mask_to_polygon(parts == part) for part in range(1, count)]


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    """``(K, 2)`` corners of each closed outline: clockwise around what is mask, the other way around a hole."""
    padded = np.pad(mask.astype(np.int8), 1)
    above, below = padded[:-1], padded[1:]
    around = above[:, :-1] + above[:, 1:] + below[:, :-1] + below[:, 1:]
    diagonal = (around == 2) & (above[:, :-1] == below[:, 1:])
    # Where two pixels touch by their corners alone, two outlines turn.
    ys, xs = np.nonzero((around % 2 == 1) | diagonal)
    times = np.where(diagonal[ys, xs], 2, 1)
    ys, xs = np.repeat(ys, times), np.repeat(xs, times)
    # In each row of corners edges run from the first to the second, the third to the fourth …; in columns likewise.
    along_row, along_column = _pairs(np.lexsort((xs, ys))), _pairs(np.lexsort((ys, xs)))
    outlines = []
    seen = np.zeros(len(xs), bool)
    for start in range(len(xs)):
        if seen[start]:
            continue
        corners, corner = [], start
        while not seen[corner]:
            turn = along_row[corner]
            seen[corner] = seen[turn] = True
            corners += [corner, turn]
            corner = along_column[turn]
        # The first corner is the topmost, leftmost one, and the walk begins to the right: around a hole too.
        outline = np.stack([xs[corners], ys[corners]], axis=1)
        outlines.append(outline if mask[ys[start], xs[start]] else outline[::-1])
    return outlines


def _pairs(order: np.ndarray) -> list[int]:
    """For each item its partner, the items paired as they come in ``order``."""
    partner = np.empty(len(order), np.int64)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    found: list[int] = partner.tolist()
    return found
