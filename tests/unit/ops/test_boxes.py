from __future__ import annotations

import numpy as np

from mobilesam_core.ops.boxes import box_areas, boxes_inside, clip_boxes, mask_box


def test_box_edges_are_exclusive() -> None:
    mask = np.zeros((6, 8), bool)
    mask[2, 3] = True
    assert mask_box(mask).tolist() == [3, 2, 4, 3]
    mask[5, 7] = True
    assert mask_box(mask).tolist() == [3, 2, 8, 6]
    assert mask_box(np.zeros((6, 8), bool)).tolist() == [0, 0, 0, 0]


def test_clipping_leaves_no_area_outside() -> None:
    boxes = np.array([[0, 0, 10, 10], [2, 3, 4, 5], [20, 20, 30, 30]], np.float32)
    clipped = clip_boxes(boxes, (3, 3, 8, 9))
    assert clipped.tolist() == [[3, 3, 8, 9], [3, 3, 4, 5], [8, 9, 8, 9]]
    assert box_areas(clipped).tolist() == [30, 2, 0]


def test_inside_is_up_to_the_edges() -> None:
    boxes = np.array([[3, 3, 8, 9], [2, 3, 8, 9], [3, 3, 8, 10], [4, 4, 5, 5]], np.float32)
    assert boxes_inside(boxes, (3, 3, 8, 9)).tolist() == [True, False, False, True]
