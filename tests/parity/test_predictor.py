"""``SamPredictor`` and ``Sam.forward`` against the reference, on real photos, from pixels to masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mobile_sam
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from mobilesam_core.models.sam import Sam
from mobilesam_core.prediction.predictor import SamPredictor

Pair = tuple[Any, Sam]
Check = Callable[[Tensor, Tensor], None]


def assert_same_masks(ours: np.ndarray, expected: np.ndarray) -> None:
    share = expected.mean(axis=(-2, -1))
    assert ((share > 0.01) & (share < 0.99)).any(), "masks of one sign would prove nothing"
    assert ours.shape == expected.shape
    assert ours.dtype == expected.dtype == bool
    assert (ours == expected).mean() >= 0.9999


@pytest.fixture(scope="module")
def predictors(vit_t: Pair, photo: np.ndarray) -> tuple[Any, SamPredictor]:
    oracle, ours = mobile_sam.SamPredictor(vit_t[0]), SamPredictor(vit_t[1])
    oracle.set_image(photo)
    ours.set_image(photo)
    return oracle, ours


def test_image_embedding(predictors: tuple[Any, SamPredictor], assert_same: Check) -> None:
    oracle, ours = predictors
    assert_same(ours.get_image_embedding(), oracle.get_image_embedding())


def test_bgr(vit_t: Pair, photo: np.ndarray, predictors: tuple[Any, SamPredictor], assert_same: Check) -> None:
    predictor = SamPredictor(vit_t[1])
    predictor.set_image(photo[..., ::-1], image_format="BGR")
    assert_same(predictor.get_image_embedding(), predictors[0].get_image_embedding())


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kinds", ["point", "points", "box", "points box", "mask", "point mask", "points box mask"])
def test_predict(predictors: tuple[Any, SamPredictor], assert_same: Check, kinds: str, multimask: bool) -> None:
    oracle, ours = predictors
    height, width = ours.original_size
    given: dict[str, Any] = {}
    if "point" in kinds:
        points = np.array([[0.4, 0.5], [0.6, 0.3], [0.2, 0.7]]) * [width, height]
        count = 3 if "points" in kinds else 1
        given |= {"point_coords": points[:count], "point_labels": np.array([1, 0, 1])[:count]}
    if "box" in kinds:
        given["box"] = np.array([0.1 * width, 0.2 * height, 0.8 * width, 0.9 * height])
    if "mask" in kinds:
        given["mask_input"] = np.random.default_rng(0).normal(0, 5, (1, 256, 256)).astype(np.float32)
    masks, iou, low_res = ours.predict(**given, multimask_output=multimask)
    expected = oracle.predict(**given, multimask_output=multimask)
    assert masks.shape == (3 if multimask else 1, height, width)
    assert_same_masks(masks, expected[0])
    assert_same(torch.tensor(iou), torch.tensor(expected[1]))
    assert_same(torch.tensor(low_res), torch.tensor(expected[2]))
    assert_same(
        torch.tensor(ours.predict(**given, multimask_output=multimask, return_logits=True)[0]),
        torch.tensor(oracle.predict(**given, multimask_output=multimask, return_logits=True)[0]),
    )


def test_predict_torch_batches_boxes_with_points(predictors: tuple[Any, SamPredictor], assert_same: Check) -> None:
    oracle, ours = predictors
    size = ours.original_size
    boxes = torch.tensor([[10.0, 20, 300, 200], [100, 50, 400, 300], [5, 5, 60, 90]])
    points = torch.tensor([[[50.0, 60]], [[200, 100]], [[30, 40]]])
    labels = torch.tensor([[1], [0], [1]])
    coords = ours.transform.apply_coords_torch(points, size), labels, ours.transform.apply_boxes_torch(boxes, size)
    assert_same(coords[0], oracle.transform.apply_coords_torch(points, size))
    assert_same(coords[2], oracle.transform.apply_boxes_torch(boxes, size))
    masks, iou, low_res = ours.predict_torch(*coords)
    expected = oracle.predict_torch(*coords)
    assert_same_masks(masks.numpy(), expected[0].numpy())
    assert_same(iou, expected[1])
    assert_same(low_res, expected[2])


def test_transform_of_arrays(predictors: tuple[Any, SamPredictor], photo: np.ndarray) -> None:
    oracle, ours = predictors
    boxes = np.array([[1.0, 2, 30, 40]])
    np.testing.assert_array_equal(ours.transform.apply_image(photo), oracle.transform.apply_image(photo))
    np.testing.assert_allclose(
        ours.transform.apply_boxes(boxes, photo.shape[:2]), oracle.transform.apply_boxes(boxes, photo.shape[:2])
    )
    pixels = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float()
    torch.testing.assert_close(ours.transform.apply_image_torch(pixels), oracle.transform.apply_image_torch(pixels))


def test_forward_of_several_images(vit_t: Pair, data_root: Path, assert_same: Check) -> None:
    oracle, ours = vit_t
    transform = SamPredictor(ours).transform
    batch: list[dict[str, Any]] = []
    for name in ("sam_truck.jpg", "skimage_coins.png"):
        image = np.asarray(Image.open(data_root / "photos" / name).convert("RGB"))
        pixels = torch.from_numpy(transform.apply_image(image).copy()).permute(2, 0, 1)
        batch.append({"image": pixels, "original_size": image.shape[:2]})
    batch[0] |= {
        "point_coords": torch.tensor([[[500.0, 300], [100, 50]], [[200, 600], [5, 9]]]),
        "point_labels": torch.tensor([[1, 0], [1, 1]]),
    }
    batch[1] |= {
        "boxes": torch.tensor([[100.0, 100, 300, 400], [0, 0, 50, 60], [10, 500, 900, 700]]),
        "mask_inputs": torch.randn(3, 1, 256, 256, generator=torch.Generator().manual_seed(0)),
    }
    for result, expected in zip(ours(batch, True), oracle(batch, True), strict=True):
        assert_same_masks(result["masks"].numpy(), expected["masks"].numpy())
        assert_same(result["iou_predictions"], expected["iou_predictions"])
        assert_same(result["low_res_logits"], expected["low_res_logits"])
