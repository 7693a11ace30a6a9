from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from mobilesam_core.config.tiles import TileConfig
from mobilesam_core.errors import UsageError
from mobilesam_core.ops.tiles import Tiling, whole_in


@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (65, 64), (1, 5000), (300, 471), (100, 192)])
@pytest.mark.parametrize("overlap", [0, 20, 63])
def test_tiles_cover_the_image_share_their_overlap_and_are_never_smaller(shape: tuple[int, int], overlap: int) -> None:
    tiling = Tiling(64, overlap)
    tiles = tiling.windows(*shape)
    seen = np.zeros(shape, bool)
    for left, top, right, bottom in tiles:
        assert min(left, top) >= 0 and right <= shape[1] and bottom <= shape[0]
        assert (bottom - top, right - left) == tiling.shape(*shape) == (min(64, shape[0]), min(64, shape[1]))
        seen[top:bottom, left:right] = True
    assert seen.all() and len(set(tiles)) == len(tiles)
    for axis in (0, 1):
        starts = sorted({tile[axis] for tile in tiles})
        assert all(a + 64 - b >= overlap for a, b in pairwise(starts))


def test_the_grid_is_as_small_as_can_be() -> None:
    assert len(Tiling(64, 0).windows(128, 192)) == 6
    assert Tiling(64, 16).windows(64, 112) == [(0, 0, 64, 64), (48, 0, 112, 64)]
    assert Tiling(64, 16).windows(113, 64) == [(0, 0, 64, 64), (0, 48, 64, 112), (0, 49, 64, 113)]


def test_an_object_is_looked_at_where_it_is_whole_and_most_in_the_middle() -> None:
    tiling = Tiling(100, 40)  # begin at 0, 60, 100 in both directions
    boxes = [[0, 0, 10, 10], [62, 62, 98, 98], [70, 70, 99, 99], [55, 0, 105, 10], [195, 5, 200, 80], [0, 0, 200, 200]]
    assert whole_in(np.array(boxes, np.float32), tiling, 200, 200) == [
        (0, 0, 100, 100),
        (0, 0, 100, 100),  # its centre is as far from four tiles'
        (60, 60, 160, 160),
        (0, 0, 200, 200),  # cut by every tile
        (100, 0, 200, 100),
        (0, 0, 200, 200),
    ]
    assert whole_in(np.zeros((0, 4), np.float32), tiling, 200, 200) == []


@pytest.mark.parametrize(
    ("tile", "overlap", "said"),
    [(63, 0, "tile is 63 pixels"), (-5, 0, "tile is -5"), (64, 64, r"overlap is 64 .* tile \(64\)"), (64, -1, "-1")],
)
def test_tiles_that_cannot_be_are_refused(tile: int, overlap: int, said: str) -> None:
    with pytest.raises(UsageError, match=f"(?i){said}"):
        Tiling(tile, overlap)
    with pytest.raises(ValueError, match=said):
        TileConfig(tile=tile, overlap=overlap)


def test_without_a_tile_there_is_no_tiling() -> None:
    assert Tiling.of(TileConfig(overlap=7)) is None
    assert Tiling.of(TileConfig(tile=80, overlap=7)) == Tiling(80, 7)
