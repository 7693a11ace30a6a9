"""Where to ask: points over an image, and crops of it (Kirillov et al., "Segment Anything", 2023, appendix B)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from mobilesam_core.errors import UsageError
from mobilesam_core.ops.tiles import Tiling


@dataclass(frozen=True)
class Crop:
    """A part of an image: ``(x1, y1, x2, y2)`` in its pixels, right and bottom exclusive; layer 0 is all of it."""

    box: tuple[int, int, int, int]
    layer: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        x1, y1, x2, y2 = self.box
        return y2 - y1, x2 - x1


def point_grid(points_per_side: int) -> np.ndarray:
    """``(n², 2)`` float64 ``(x, y)`` in [0, 1], row by row, each in the middle of its cell."""
    line = (np.arange(points_per_side) + 0.5) / points_per_side
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


def point_grids(points_per_side: int, layers: int, downscale: int) -> list[np.ndarray]:
    """The grid of each layer of crops, 0 to ``layers``; layer n has ``points_per_side / downscale^n`` a side.

    Raises:
        UsageError: a layer would have none.
    """
    sides = [int(points_per_side / downscale**layer) for layer in range(layers + 1)]
    if min(sides) < 1:
        raise UsageError(
            f"Layer {sides.index(0)} of the crops has no point to ask at.",
            "Lower crop_n_points_downscale_factor or crop_n_layers, or raise points_per_side.",
        )
    return [point_grid(side) for side in sides]


def coarse_to_fine(points_per_side: int) -> list[np.ndarray]:
    """Indices into :func:`point_grid` in two passes: every second point of every second row, then the others."""
    index = np.arange(points_per_side**2).reshape(points_per_side, points_per_side)
    start = min(1, points_per_side - 1)
    coarse = index[start::2, start::2].ravel()
    return [coarse, np.setdiff1d(index, coarse)]


def crops(height: int, width: int, layers: int, overlap_ratio: float) -> Sequence[Crop]:
    """The whole image, then for each layer n 4^n crops that overlap by a share of the image's shorter side.

    Crops that would be empty in a very narrow image are left out.
    """
    found = [Crop((0, 0, width, height), 0)]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(height, width) * 2 / count)
        crop_width, crop_height = (math.ceil((overlap * (count - 1) + side) / count) for side in (width, height))
        lefts, tops = ([(extent - overlap) * i for i in range(count)] for extent in (crop_width, crop_height))
        for left, top in product(lefts, tops):
            box = (left, top, min(left + crop_width, width), min(top + crop_height, height))
            if box[2] > box[0] and box[3] > box[1]:
                found.append(Crop(box, layer))
    return found


def tiles(height: int, width: int, tiling: Tiling) -> Sequence[Crop]:
    """The whole image, in which objects larger than a tile are found, and its tiles, if it is larger than one."""
    whole = Crop((0, 0, width, height), 0)
    parts = [Crop(window, 1) for window in tiling.windows(height, width)]
    return [whole, *parts] if len(parts) > 1 else [whole]
