"""Tiles of a set's images as images of their own."""

from __future__ import annotations

import numpy as np

from mobilesam_core.data.sample import Sample, SampleSource
from mobilesam_core.ops.boxes import boxes_inside
from mobilesam_core.ops.tiles import Tiling


class BusiestTiles:
    """Of each sample of ``source`` the tile that holds most objects whole, of several the first."""

    def __init__(self, source: SampleSource, tiling: Tiling) -> None:
        self._source = source
        self._tiling = tiling

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Sample:
        sample = self._source[index]
        windows = self._tiling.windows(*sample.masks.shape)
        held = [np.count_nonzero(boxes_inside(sample.masks.boxes, window)) for window in windows]
        return sample.part(windows[int(np.argmax(held))])

    def describe(self, index: int) -> str:
        return self._source.describe(index)
