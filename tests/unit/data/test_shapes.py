from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.data.shapes import MIN_VISIBLE_PIXELS, ShapesSource
from mobilesam_core.errors import ConfigError

CONFIG = ShapesConfig(format="shapes", count=40, size=96, max_shapes=8)


def test_an_image_depends_on_seed_and_index_alone() -> None:
    first = [ShapesSource(CONFIG)[index].image for index in range(6)]
    again = [ShapesSource(CONFIG)[index].image for index in reversed(range(6))]
    assert all(np.array_equal(a, b) for a, b in zip(first, reversed(again), strict=True))
    other = ShapesSource(CONFIG.model_copy(update={"seed": 1}))
    assert not any(np.array_equal(image, other[index].image) for index, image in enumerate(first))
    assert not np.array_equal(first[0], first[1])


def test_objects_are_visible_apart_and_differ_from_their_surroundings() -> None:
    source = ShapesSource(CONFIG)
    assert len(source) == 40
    counts, contrasts = [], []
    for index in range(len(source)):
        sample = source[index]
        assert sample.image.shape == (96, 96, 3) and sample.image.dtype == np.uint8
        assert 1 <= len(sample.masks) <= 8
        assert sample.masks.areas.min() >= MIN_VISIBLE_PIXELS
        dense = sample.masks.dense(range(len(sample.masks)))
        assert dense.sum(axis=0).max() == 1
        counts.append(len(dense))
        ground = sample.image[~dense.any(axis=0)]
        if len(ground):
            contrasts += [np.abs(sample.image[mask].mean(0) - ground.mean(0)).max() for mask in dense]
    assert len(set(counts)) > 4
    assert np.median(contrasts) > 25
    with pytest.raises(IndexError):
        source[40]


def test_grey_shapes_and_channels() -> None:
    assert build_source(CONFIG, Path(), channels=1)[0].image.shape == (96, 96)
    with pytest.raises(ConfigError, match="not 5"):
        build_source(CONFIG, Path(), channels=5)


@pytest.mark.parametrize("size", [32, 33])
def test_the_smallest_images_have_objects(size: int) -> None:
    source = ShapesSource(ShapesConfig(format="shapes", count=100, size=size, max_shapes=1))
    assert all(len(source[index].masks) == 1 for index in range(100))
