from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mobilesam_core.ops.masks import (
    DenseMasks,
    InstanceMasks,
    LabelMapMasks,
    PartMasks,
    RleMasks,
    mask_coverage,
    place_masks,
    resize_masks,
)
from mobilesam_core.ops.rle import encode_rle

IDS = (3, 7, 300)


def example() -> tuple[np.ndarray, np.ndarray]:
    """A label map of three objects, one in two parts, and the same as dense masks."""
    label_map = np.zeros((20, 30), np.uint16)
    label_map[2:6, 3:9] = 3
    label_map[10:20, 25:30] = 7
    label_map[0, 0] = label_map[18, 1] = 300
    return label_map, np.stack([label_map == label for label in IDS])


def all_kinds() -> list[InstanceMasks]:
    label_map, dense = example()
    return [
        LabelMapMasks(label_map),
        LabelMapMasks(label_map.astype(np.int64)),
        RleMasks([encode_rle(mask) for mask in dense], (20, 30), IDS),
        DenseMasks(dense, IDS),
    ]


@pytest.mark.parametrize("masks", all_kinds(), ids=lambda masks: type(masks).__name__)
def test_every_kind_tells_the_same(masks: InstanceMasks) -> None:
    _, dense = example()
    assert len(masks) == 3 and masks.shape == (20, 30)
    assert masks.labels.tolist() == list(IDS) and masks.labels.dtype == np.int64
    assert masks.areas.tolist() == [24, 50, 2] and masks.areas.dtype == np.int64
    assert masks.boxes.tolist() == [[3, 2, 9, 6], [25, 10, 30, 20], [0, 0, 2, 19]]
    assert masks.boxes.dtype == np.float32
    found = masks.dense([2, 0])
    assert found.dtype == bool and np.array_equal(found, dense[[2, 0]])
    assert np.array_equal(masks.dense([0, 1, 2], (5, 1, 27, 15)), dense[:, 1:15, 5:27])
    assert masks.dense([], (5, 1, 27, 15)).shape == (0, 14, 22)


@pytest.mark.parametrize("window", [(0, 0, 30, 20), (5, 1, 27, 15), (1, 0, 25, 18), (9, 0, 10, 20), (27, 12, 30, 20)])
def test_a_part_is_what_shows_in_the_window(window: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = window
    cut = example()[1][:, top:bottom, left:right]
    expected = DenseMasks(cut, IDS)
    shows = expected.areas > 0
    for masks in all_kinds():
        part = PartMasks(masks, window)
        assert part.shape == cut.shape[1:] and part.labels.tolist() == np.array(IDS)[shows].tolist()
        assert np.array_equal(part.areas, expected.areas[shows]) and np.array_equal(part.boxes, expected.boxes[shows])
        assert np.array_equal(part.dense(range(len(part))), cut[shows])
        assert np.array_equal(part.dense(range(len(part)), (0, 1, 1, 6)), cut[shows, 1:6, :1])
    placed = place_masks(cut, window, (20, 30))
    assert placed.shape == (3, 20, 30) and np.array_equal(placed[:, top:bottom, left:right], cut)
    assert placed.sum() == cut.sum()


@pytest.mark.parametrize("window", [(0, 0, 31, 20), (-1, 0, 5, 5), (5, 5, 5, 9)])
def test_a_window_outside_the_image_is_refused(window: tuple[int, int, int, int]) -> None:
    for masks in all_kinds():
        with pytest.raises(ValueError, match="not inside"):
            masks.dense([0], window)


def test_no_object_and_huge_ids() -> None:
    assert len(LabelMapMasks(np.zeros((4, 4), np.uint8))) == 0
    assert LabelMapMasks(np.zeros((4, 4), np.uint8)).boxes.shape == (0, 4)
    masks = LabelMapMasks(np.array([[0, 2_000_000_000], [5, 5]], np.int64))
    assert masks.labels.tolist() == [5, 2_000_000_000]
    assert masks.dense([1])[0].tolist() == [[False, True], [False, False]]


def test_an_rle_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        RleMasks([encode_rle(np.ones((4, 5), bool))], (5, 4), [1])


def test_resizing_agrees_with_torch_and_commutes_with_flips() -> None:
    masks = np.random.default_rng(0).random((3, 40, 50)) < 0.5
    for shape in [(17, 23), (80, 100), (40, 96)]:
        expected = F.interpolate(torch.from_numpy(masks)[None].byte(), shape, mode="nearest-exact")[0].bool()
        assert np.array_equal(resize_masks(masks, shape), expected.numpy())
    flipped = resize_masks(masks[:, :, ::-1], (80, 100))
    assert np.array_equal(flipped, resize_masks(masks, (80, 100))[:, :, ::-1])


def test_a_thin_mask_does_not_vanish() -> None:
    masks = np.zeros((1, 64, 64), bool)
    masks[0, :, 0] = True
    scaled = resize_masks(masks, (8, 8))
    assert scaled[0, :, 0].all() and scaled.sum() == 8


@pytest.mark.parametrize(("frame_size", "grid_size"), [(64, 16), (64, 64), (60, 25), (64, 24)])
def test_coverage_is_the_area_average_over_the_padded_frame(frame_size: int, grid_size: int) -> None:
    masks = np.random.default_rng(0).random((2, 40, frame_size)) < 0.3
    padded = np.zeros((2, frame_size, frame_size))
    padded[:, :40] = masks
    # Each cell by integration: the overlap of every cell with every pixel, along each axis.
    edges = np.arange(grid_size + 1) * frame_size / grid_size
    pixels = np.arange(frame_size)
    overlap = np.clip(np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels), 0, None)
    overlap *= grid_size / frame_size
    coverage = mask_coverage(masks, frame_size, grid_size)
    assert coverage.dtype == np.float32 and coverage.min() >= 0 and coverage.max() <= 1
    np.testing.assert_allclose(coverage, overlap @ padded @ overlap.T, atol=1e-5)
