"""Tiles: the grid of windows that a large image is looked at in."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from mobilesam_core.config.tiles import TileConfig, tiling_problem
from mobilesam_core.errors import UsageError
from mobilesam_core.ops.masks import Window


@dataclass(frozen=True)
class Tiling:
    """Square tiles of side ``tile``, of which neighbours share at least ``overlap`` pixels.

    Raises:
        UsageError: there are no such tiles.
    """

    tile: int
    overlap: int

    def __post_init__(self) -> None:
        if problem := tiling_problem(self.tile, self.overlap):
            raise UsageError(f"{problem[0].upper()}{problem[1:]}.", "Choose other tiles.")

    @staticmethod
    def of(config: TileConfig) -> Tiling | None:
        """What a config says; None: images are looked at whole."""
        return None if config.tile is None else Tiling(config.tile, config.overlap)

    def windows(self, height: int, width: int) -> list[Window]:
        """The tiles of an image, row by row: they cover it, and the last of a row or column is moved inwards rather
        than smaller. Along a side that is not longer than a tile there is one, as long as the side."""
        return [
            (left, top, min(left + self.tile, width), min(top + self.tile, height))
            for top, left in product(self._starts(height), self._starts(width))
        ]

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of each tile of an image."""
        return min(height, self.tile), min(width, self.tile)

    def _starts(self, extent: int) -> list[int]:
        last = max(0, extent - self.tile)
        return [*range(0, last, self.tile - self.overlap), last]


def whole_in(boxes: np.ndarray, tiling: Tiling, height: int, width: int) -> list[Window]:
    """For each of ``(N, 4)`` boxes the tile that holds it whole, of several the one whose centre is nearest; for a box
    that is cut in every tile the whole image."""
    windows = tiling.windows(height, width)
    corners = np.array(windows, np.float32)
    found = []
    for box in boxes:
        holding = np.flatnonzero((corners[:, :2] <= box[:2]).all(axis=1) & (corners[:, 2:] >= box[2:]).all(axis=1))
        if not len(holding):
            found.append((0, 0, width, height))
            continue
        # Twice the way between the centres, in whole pixels: ties are ties.
        apart = corners[holding] - box
        ways = ((apart[:, :2] + apart[:, 2:]) ** 2).sum(axis=1)
        found.append(windows[holding[ways.argmin()]])
    return found
