from __future__ import annotations

import numpy as np
import pytest

from mobilesam_core.amg.grid import Crop, coarse_to_fine, crops, point_grid, point_grids, tiles
from mobilesam_core.ops.tiles import Tiling


def test_points_are_the_middles_of_cells() -> None:
    assert np.allclose(point_grid(2), [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
    assert [len(grid) for grid in point_grids(9, layers=2, downscale=2)] == [81, 16, 4]


@pytest.mark.parametrize("points_per_side", [1, 2, 3, 5, 8, 32])
def test_each_point_is_in_one_pass(points_per_side: int) -> None:
    passes = coarse_to_fine(points_per_side)
    assert sorted(np.concatenate(passes)) == list(range(points_per_side**2))
    assert len(passes) == 2 and len(passes[0]) == max(1, points_per_side // 2) ** 2


def test_crops_cover_the_image_and_overlap() -> None:
    found = crops(300, 400, layers=2, overlap_ratio=0.3)
    assert [sum(crop.layer == layer for crop in found) for layer in (0, 1, 2)] == [1, 4, 16]
    assert found[0].box == (0, 0, 400, 300) and found[0].shape == (300, 400)
    for layer in (1, 2):
        seen = np.zeros((300, 400), int)
        for crop in found:
            x1, y1, x2, y2 = crop.box
            seen[y1:y2, x1:x2] += crop.layer == layer
        assert seen.min() >= 1 and seen.max() > 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (3, 2)])
def test_no_crop_of_a_sliver_is_empty(shape: tuple[int, int]) -> None:
    assert all(min(crop.shape) > 0 for crop in crops(*shape, layers=3, overlap_ratio=0.34))


def test_tiles_are_looked_at_besides_the_whole_image() -> None:
    found = tiles(64, 112, Tiling(64, 16))
    assert found == [Crop((0, 0, 112, 64), 0), Crop((0, 0, 64, 64), 1), Crop((48, 0, 112, 64), 1)]
    assert tiles(30, 64, Tiling(64, 16)) == [Crop((0, 0, 64, 30), 0)]
