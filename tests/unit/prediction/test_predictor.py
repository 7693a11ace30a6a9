"""``SamPredictor`` on its own: what it refuses, and what it keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mobilesam_core.config.model import EncoderOverrides, ModelConfig
from mobilesam_core.errors import PromptError, UsageError
from mobilesam_core.models.registry import build_sam
from mobilesam_core.prediction.predictor import SamPredictor

POINT = {"point_coords": np.array([[20, 30]]), "point_labels": np.array([1])}


@pytest.fixture
def predictor() -> SamPredictor:
    torch.manual_seed(0)
    return SamPredictor(build_sam(ModelConfig(name="vit_nano", checkpoint=None, image_size=64)).eval())


def photo(height: int = 60, width: int = 90) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_shapes(predictor: SamPredictor) -> None:
    predictor.set_image(photo())
    masks, iou, low_res = predictor.predict(**POINT)
    assert (masks.shape, masks.dtype) == ((3, 60, 90), bool)
    assert iou.shape == (3,)
    assert low_res.shape == (3, 16, 16)
    again = predictor.predict(**POINT, mask_input=low_res[:1], multimask_output=False, return_logits=True)
    assert (again[0].shape, again[0].dtype) == ((1, 60, 90), np.float32)
    assert predictor.input_size == (43, 64)


def test_needs_an_image(predictor: SamPredictor) -> None:
    with pytest.raises(UsageError, match="No image is set"):
        predictor.predict(**POINT)
    predictor.set_image(photo())
    assert predictor.is_image_set
    assert predictor.get_image_embedding().shape == (1, 128, 4, 4)
    predictor.reset_image()
    assert not predictor.is_image_set
    with pytest.raises(UsageError, match="No image is set"):
        predictor.get_image_embedding()


@pytest.mark.parametrize(
    "image",
    [photo().astype(np.float32), photo()[..., 0], np.zeros((4, 4, 4), np.uint8), np.zeros((0, 5, 3), np.uint8)],
)
def test_refuses_other_images(predictor: SamPredictor, image: np.ndarray) -> None:
    with pytest.raises(UsageError, match="uint8"):
        predictor.set_image(image)
    assert not predictor.is_image_set


def test_refuses_other_formats_and_frames(predictor: SamPredictor) -> None:
    with pytest.raises(UsageError, match="HSV"):
        predictor.set_image(photo(), image_format="HSV")
    with pytest.raises(UsageError, match="longest side of 64"):
        predictor.set_torch_image(torch.zeros(1, 3, 32, 32), (32, 32))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"point_coords": np.array([[1.0, np.nan]]), "point_labels": np.array([1])}, "point_coords"),
        ({"point_coords": np.array([[1.0, 2.0]])}, "labels"),
        ({"point_coords": np.array([[1.0, 2.0]]), "point_labels": np.array([1, 0])}, "shapes"),
        ({"box": np.array([1, 2, 3])}, "box"),
        ({"box": np.array([1, 2, 3, np.inf])}, "box"),
        ({"mask_input": np.zeros((1, 256, 256))}, r"\(B, 1, 16, 16\)"),
    ],
)
def test_refuses_prompts(predictor: SamPredictor, given: dict[str, Any], says: str) -> None:
    predictor.set_image(photo())
    with pytest.raises(PromptError, match=says):
        predictor.predict(**given)


def test_grey_images() -> None:
    config = ModelConfig(name="vit_nano", checkpoint=None, image_size=64, encoder=EncoderOverrides(input_channels=1))
    predictor = SamPredictor(build_sam(config).eval())
    predictor.set_image(photo()[..., 0])
    masks, _, _ = predictor.predict(box=np.array([5, 5, 40, 40]))
    assert masks.shape == (3, 60, 90)


def test_inputs_are_left_alone(predictor: SamPredictor) -> None:
    image, coords = photo(), np.array([[20.0, 30.0]])
    before = image.copy()
    predictor.set_image(image)
    predictor.predict(coords, np.array([1]))
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(coords, [[20.0, 30.0]])
