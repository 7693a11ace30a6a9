from __future__ import annotations

import numpy as np
import pytest
import torch

from mobilesam_core.ops.metrics import (
    boundary_iou,
    boundary_width,
    dice_from_iou,
    fill_box_iou,
    mask_iou,
)


def blobs(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    """A smooth random mask, away from the border or not."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), bool)
    for _ in range(3):
        y, x, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(3, 25)
        mask |= (rows - y) ** 2 + (columns - x) ** 2 < r**2
    return mask


def plain_boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of the mask with background, or the outside, at most ``width`` away along either axis."""
    height, length = mask.shape
    padded = np.pad(mask, width)
    kept = np.ones_like(mask)
    for dy in range(2 * width + 1):
        for dx in range(2 * width + 1):
            kept &= padded[dy : dy + height, dx : dx + length]
    return mask & ~kept


@pytest.mark.parametrize("seed", range(4))
def test_iou_and_dice_equal_counting_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks, targets = rng.random((2, 5, 17, 23)) < 0.4
    iou = mask_iou(torch.from_numpy(masks), torch.from_numpy(targets))
    for i in range(5):
        ours, theirs = (set(zip(*np.nonzero(m[i]), strict=True)) for m in (masks, targets))
        assert iou[i].item() == pytest.approx(len(ours & theirs) / len(ours | theirs))
        dice = 2 * len(ours & theirs) / (len(ours) + len(theirs))
        assert dice_from_iou(iou[i].item()) == pytest.approx(dice)


def test_candidates_are_compared_with_their_own_target() -> None:
    targets = torch.zeros(2, 4, 4, dtype=torch.bool)
    targets[0, :2], targets[1, 2:] = True, True
    candidates = torch.stack([targets, ~targets, torch.ones_like(targets)], dim=1)
    assert mask_iou(candidates, targets[:, None]).tolist() == [[1, 0, 0.5], [1, 0, 0.5]]


@pytest.mark.parametrize(("mask", "target", "expected"), [(0, 0, 1.0), (0, 1, 0.0), (1, 0, 0.0), (1, 1, 1.0)])
def test_empty_and_full_masks(mask: int, target: int, expected: float) -> None:
    a, b = (np.full((30, 40), bool(value)) for value in (mask, target))
    assert mask_iou(torch.from_numpy(a), torch.from_numpy(b)).item() == expected
    assert dice_from_iou(expected) == expected
    assert boundary_iou(a, b) == expected


@pytest.mark.parametrize("seed", range(6))
def test_boundary_iou_in_the_window_equals_that_of_the_whole_image(seed: int) -> None:
    mask, target = blobs(seed), blobs(seed + 100)
    width = boundary_width(*mask.shape)
    assert width == 3
    ours, theirs = plain_boundary(mask, width), plain_boundary(target, width)
    assert boundary_iou(mask, target) == (ours & theirs).sum() / (ours | theirs).sum()


def test_the_image_border_is_an_edge() -> None:
    full = np.ones((100, 100), bool)
    ring = full.copy()
    ring[3:-3, 3:-3] = False
    assert boundary_iou(full, ring) == 1.0


def test_boundary_width_is_two_percent_of_the_diagonal_and_at_least_one() -> None:
    assert boundary_width(3, 4) == 1
    assert boundary_width(300, 400) == 10


def test_filling_the_box_is_area_over_box_area() -> None:
    boxes = np.array([[2, 3, 6, 5], [0, 0, 1, 1]], np.float32)
    assert fill_box_iou(np.array([6, 1]), boxes).tolist() == [0.75, 1.0]
