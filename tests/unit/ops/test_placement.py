from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mobilesam_core.config.data import AugmentConfig, DataConfig, ShapesConfig
from mobilesam_core.config.prompts import PromptConfig
from mobilesam_core.data.sample import Sample
from mobilesam_core.data.training_set import TrainingSet
from mobilesam_core.ops.frame import Frame, resize_image
from mobilesam_core.ops.masks import LabelMapMasks, RleMasks
from mobilesam_core.ops.placement import Placement, place_features
from mobilesam_core.ops.resize import pad_to_frame, to_tensor

SIZE, GRID = 256, 32


def cells(framed: Tensor) -> Tensor:
    """Of an image ``(3, h, w)`` in its frame: the mean colour of each cell, and whether that and its neighbours show
    image alone; ``(4, GRID, GRID)``."""
    padded = pad_to_frame(torch.cat([framed.float(), torch.ones(1, *framed.shape[1:])]), SIZE)
    means = F.avg_pool2d(padded, SIZE // GRID)
    inside = (means[3:] == 1).float()
    return torch.cat([means[:3], -F.max_pool2d(-F.pad(inside, (1, 1, 1, 1))[None], 3, 1)[0]])


class Colours:
    """What that teacher stored of one image."""

    def __init__(self, image: np.ndarray) -> None:
        self.frame = Frame.of(*image.shape[:2], SIZE)
        self.features = cells(to_tensor(resize_image(image, self.frame))).half()

    def read(self, source: str, placement: Placement | None = None) -> Mapping[str, Tensor]:
        assert placement is not None
        return {"teacher/neck": place_features(self.features, self.frame, placement)}


class One:
    """A source of one sample."""

    def __init__(self, sample: Sample) -> None:
        self._sample = sample

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return self._sample

    def describe(self, index: int) -> str:
        return self._sample.source


def gradient_image(height: int, width: int) -> np.ndarray:
    """Colours that say where they are and vary slowly, so that cells may be interpolated."""
    y, x = np.mgrid[:height, :width].astype(float)
    planes = [x / width, y / height, 0.5 + 0.4 * np.sin(3 * x / width + 2 * y / height)]
    return (40 + 200 * np.stack(planes, axis=-1)).astype(np.uint8)


@pytest.mark.parametrize("shape", [(192, 256), (300, 120)])
@pytest.mark.parametrize(
    "augment",
    [
        {"horizontal_flip": 0.5, "vertical_flip": 0.5},
        {"horizontal_flip": 0.5, "vertical_flip": 0.5, "transpose": 0.5},
        {"horizontal_flip": 0.5, "transpose": 0.5, "scale": (0.5, 2.0)},
        {"vertical_flip": 0.5, "transpose": 0.5, "crop": 96, "scale": (0.8, 1.5)},
    ],
)
@pytest.mark.parametrize("labelled", [True, False])
def test_placed_features_are_those_of_the_augmented_image(
    shape: tuple[int, int], augment: dict, labelled: bool
) -> None:
    image = gradient_image(*shape)
    label_map = np.zeros(shape, np.uint8)
    label_map[shape[0] // 3 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = 1
    masks = LabelMapMasks(label_map) if labelled else RleMasks([], shape, [])
    config = ShapesConfig(format="shapes")
    data = DataConfig(train=config, max_objects=2, augment=AugmentConfig(**augment))
    source = One(Sample("a", image, masks, "a.png"))
    dataset = TrainingSet(source, data, PromptConfig(), SIZE, GRID, 0, Colours(image))
    seen = set()
    for epoch in range(16):
        item = dataset[epoch, 0]
        found = item.features["teacher/neck"].float()
        expected = cells(item.image)
        # The outermost cells mix with what lies beside the image, in the store and in the view.
        core = (found[3] > 0.99) & (expected[3] == 1)
        assert core.sum() >= 12
        difference = (found - expected).abs()[:3, core]
        assert difference.max() < 4, (epoch, difference.max())  # of 255 grey levels
        seen.add(tuple(found[:, 3, 3].tolist()))
    assert len(seen) >= 3


def test_a_whole_image_keeps_its_features_as_they_are() -> None:
    features = torch.randn(3, GRID, GRID).half()
    for shape in ((192, 256), (481, 321)):
        frame = Frame.of(*shape, 512)
        placement = Placement.of(shape, (0, 0, shape[1], shape[0]), np.array([[0, 1], [2, 3]]), frame)
        assert place_features(features, Frame.of(*shape, 1024), placement) is features
