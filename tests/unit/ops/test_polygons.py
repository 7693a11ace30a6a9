from __future__ import annotations

import numpy as np
import pytest

from mobilesam_core.ops.polygons import mask_to_polygon, mask_to_polygons
from mobilesam_core.ops.rle import decode_rle, polygons_to_rle


def drawn(polygons: list[list[float]], mask: np.ndarray) -> np.ndarray:
    return decode_rle(polygons_to_rle(polygons, *mask.shape))


def test_any_mask_is_drawn_again_exactly() -> None:
    rng = np.random.default_rng(0)
    sizes = [tuple(rng.integers(1, 14, 2)) for _ in range(300)]
    masks = [mask for size in sizes if (mask := rng.random(size) < rng.random()).any()]
    large = np.hypot(*np.mgrid[-300:300, -400:400]) % 200 < 110  # rings in rings, cut by the image
    for mask in [*masks, large, np.ones((5, 7), bool)]:
        assert np.array_equal(drawn([mask_to_polygon(mask)], mask), mask)
        assert np.array_equal(drawn(mask_to_polygons(mask), mask), mask)


def test_in_shares_of_the_image_too() -> None:
    rng = np.random.default_rng(1)
    for width in (7, 333, 4096, 20000):
        mask = np.zeros((9, width), bool)
        mask[rng.integers(0, 9, 40), rng.integers(0, width, 40)] = True
        shares = np.array([float(f"{share:.8g}") for share in np.array(mask_to_polygon(mask)[::2]) / width])
        polygon = np.stack([shares * width, mask_to_polygon(mask)[1::2]], 1).ravel().tolist()
        assert np.array_equal(drawn([polygon], mask), mask)


def test_corners_lie_on_pixel_edges_and_run_around() -> None:
    mask = np.zeros((6, 8), bool)
    mask[1:4, 2:7] = True
    assert mask_to_polygon(mask) == [2, 1, 7, 1, 7, 4, 2, 4]


def test_parts_and_holes() -> None:
    mask = np.zeros((12, 20), bool)
    mask[1:8, 1:8] = True
    mask[3:5, 3:5] = False
    mask[2:4, 12:14] = True
    mask[4, 14] = True  # touches the part above by a corner: one part
    polygons = mask_to_polygons(mask)
    assert len(polygons) == 2
    # Each outline, and to a hole a line and back; the bridge is the shortest there is.
    assert len(polygons[0]) == 2 * (4 + 4 + 2)
    lengths = [abs(np.diff(np.reshape(polygon, (-1, 2)), axis=0)).sum(1).min() for polygon in polygons]
    assert min(lengths) > 0  # no corner twice in a row


@pytest.mark.parametrize("width", [1, 3])
def test_thin_lines(width: int) -> None:
    mask = np.zeros((50, 50), bool)
    for row in range(50):
        mask[row, max(0, row - width + 1) : row + 1] = True
    assert np.array_equal(drawn([mask_to_polygon(mask)], mask), mask)
