"""The generator against mobile_sam's, on real photographs and random weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mobile_sam
import numpy as np
import pytest
import torch
from PIL import Image

from mobilesam_core.amg.generator import SamAutomaticMaskGenerator
from mobilesam_core.models.sam import Sam
from mobilesam_core.ops.rle import decode_rle

Pair = tuple[Any, Sam]
MASK_THRESHOLD = 2.5
LOOSE = {"stability_score_thresh": 0.0, "box_nms_thresh": 0.85}


@pytest.fixture
def pair(vit_t: Pair) -> Iterator[Pair]:
    """With predicted IoUs above zero, the least threshold that filters, and so high a threshold of masks that those of
    random weights, which look alike, become specks in different places."""
    heads = [model.mask_decoder.iou_prediction_head.layers[-1].bias.data for model in vit_t]
    for model, bias in zip(vit_t, heads, strict=True):
        bias += 2
        model.mask_threshold = MASK_THRESHOLD
    yield vit_t
    for model, bias in zip(vit_t, heads, strict=True):
        bias -= 2
        model.mask_threshold = 0.0


@pytest.fixture(scope="session")
def small_photo(data_root: Path) -> np.ndarray:
    image = Image.open(data_root / "photos/mobilesam_picture2.jpg").convert("RGB")
    return np.asarray(image.resize((400, 300)))


def _survival_threshold(oracle: Any, image: np.ndarray, points_per_side: int, share: float) -> float:
    """The predicted IoU that ``share`` of all candidates exceed."""
    predictor = mobile_sam.SamPredictor(oracle)
    predictor.set_image(image)
    line = (np.arange(points_per_side) + 0.5) / points_per_side
    points = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2) * np.array(image.shape[1::-1])
    coords = torch.as_tensor(predictor.transform.apply_coords(points, image.shape[:2]))
    _, scores, _ = predictor.predict_torch(coords[:, None], torch.ones(len(coords), 1), multimask_output=True)
    return float(scores.flatten().quantile(1 - share))


def _ious(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """``(N, M)``; 1 where both are empty."""
    a, b = (masks.reshape(len(masks), -1).astype(np.float32) for masks in (ours, theirs))
    both = a @ b.T
    either = a.sum(1)[:, None] + b.sum(1) - both
    return np.where(either > 0, both / np.maximum(either, 1), 1)


def _assert_alike(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert len(ours) == len(theirs) > 3
    assert [set(record) for record in ours] == [set(record) for record in theirs]
    ious = _ious(*(np.stack([record["segmentation"] for record in records]) for records in (ours, theirs)))
    assert ious.max(axis=0).mean() >= 0.999 and ious.max(axis=1).mean() >= 0.999
    # Scores order both, and no two are equal: records come in pairs.
    assert ious.diagonal().mean() >= 0.999
    for mine, other in zip(ours, theirs, strict=True):
        assert mine["predicted_iou"] == pytest.approx(other["predicted_iou"], abs=1e-3)
        assert mine["stability_score"] == pytest.approx(other["stability_score"], abs=1e-3, nan_ok=True)
        assert np.allclose(mine["bbox"], other["bbox"], atol=2) and abs(mine["area"] - other["area"]) < 20
        assert mine["point_coords"] == other["point_coords"] and mine["crop_box"] == other["crop_box"]


@pytest.mark.parametrize(("points_per_side", "share"), [(8, 0.1), (4, 0.5)])
def test_grid(pair: Pair, photo: np.ndarray, points_per_side: int, share: float) -> None:
    oracle, ours = pair
    threshold = _survival_threshold(oracle, photo, points_per_side, share)
    assert threshold > 0
    given = {"points_per_side": points_per_side, "pred_iou_thresh": threshold, **LOOSE}
    expected = mobile_sam.SamAutomaticMaskGenerator(oracle, points_per_batch=1, **given).generate(photo)
    _assert_alike(SamAutomaticMaskGenerator(ours, **given).generate(photo), expected)
    assert len(expected) < share * 3 * points_per_side**2  # suppression had something to do


def test_crops_regions_and_stability(pair: Pair, small_photo: np.ndarray) -> None:
    oracle, ours = pair
    threshold = _survival_threshold(oracle, small_photo, 4, 0.9)
    given = {
        "points_per_side": 4,
        "pred_iou_thresh": threshold,
        "stability_score_thresh": 0.2,
        "stability_score_offset": 0.1,
        "box_nms_thresh": 0.95,
        "crop_nms_thresh": 0.8,
        "crop_n_layers": 1,
        "crop_n_points_downscale_factor": 2,
        "min_mask_region_area": 30,
    }
    expected = mobile_sam.SamAutomaticMaskGenerator(oracle, points_per_batch=1, **given).generate(small_photo)
    _assert_alike(SamAutomaticMaskGenerator(ours, points_per_batch=3, **given).generate(small_photo), expected)
    assert len({tuple(record["crop_box"]) for record in expected}) > 1


@pytest.mark.parametrize("mode", ["uncompressed_rle", "coco_rle"])
def test_rle_output(pair: Pair, small_photo: np.ndarray, mode: Any) -> None:
    oracle, ours = pair
    given = {"points_per_side": 2, "pred_iou_thresh": 0.0, "output_mode": mode, **LOOSE}
    expected = mobile_sam.SamAutomaticMaskGenerator(oracle, **given).generate(small_photo)
    found = SamAutomaticMaskGenerator(ours, **given).generate(small_photo)
    assert len(found) == len(expected) > 1
    for mine, theirs in zip(found, expected, strict=True):
        assert mine["segmentation"]["size"] == theirs["segmentation"]["size"]
        assert type(mine["segmentation"]["counts"]) is type(theirs["segmentation"]["counts"])
        assert (decode_rle(mine["segmentation"]) != decode_rle(theirs["segmentation"])).sum() <= 2
