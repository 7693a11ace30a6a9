from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision

from mobilesam_core.amg.candidates import best_of_each


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 0.99])
def test_the_boxes_that_torchvision_keeps(threshold: float) -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 6, (400, 2))
    boxes = np.concatenate([corners, corners + rng.integers(1, 12, (400, 2))], axis=1)
    scores = rng.permutation(400).astype(np.float32)
    expected = torchvision.ops.nms(torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores), threshold)
    assert best_of_each(boxes, scores, threshold).tolist() == expected.tolist()
    assert 5 < len(expected) < 400


@pytest.mark.parametrize("threshold", [k / 100 for k in range(50, 100)])
def test_an_overlap_at_the_threshold_itself(threshold: float) -> None:
    wide = round(100 * threshold)
    boxes = np.array([[0, 0, 100, 50], [0, 0, wide, 50]])
    scores = np.array([0.9, 0.8], np.float32)
    expected = torchvision.ops.nms(torch.tensor(boxes, dtype=torch.float32), torch.tensor(scores), threshold)
    assert best_of_each(boxes, scores, threshold).tolist() == expected.tolist()
