from __future__ import annotations

import numpy as np
import pytest

from mobilesam_core.config.data import AugmentConfig, DataConfig, ShapesConfig
from mobilesam_core.data.view import check_trainable, choose_objects, choose_view, trainable_tiles
from mobilesam_core.errors import DataError
from mobilesam_core.ops.frame import Frame


def data(
    min_object_area: int = 4, max_objects: int = 16, tile: int | None = None, overlap: int = 16, **augment: object
) -> DataConfig:
    return DataConfig(
        tile=tile,
        overlap=overlap,
        train=ShapesConfig(format="shapes"),
        min_object_area=min_object_area,
        max_objects=max_objects,
        augment=AugmentConfig(**augment),
    )


def test_without_augmentation_the_view_is_the_image_in_its_frame(bright_sample, two_squares) -> None:
    view = choose_view(bright_sample(two_squares), data(), 128, np.random.default_rng(0))
    assert view.window == (0, 0, 60, 40)
    assert view.frame(40, 60, 128) == Frame.of(40, 60, 128)


def test_a_crop_holds_its_anchor_whole_and_moves_about(bright_sample, two_squares) -> None:
    sample, rng = bright_sample(two_squares), np.random.default_rng(0)
    windows, anchors = set(), set()
    for _ in range(200):
        view = choose_view(sample, data(crop=20), 80, rng)
        x1, y1, x2, y2 = view.window
        box = sample.masks.boxes[view.anchor]
        assert (x2 - x1, y2 - y1) == (20, 20) and view.factor == 4
        assert x1 <= box[0] and y1 <= box[1] and x2 >= box[2] and y2 >= box[3]
        assert x1 >= 0 and y1 >= 0 and x2 <= 60 and y2 <= 40
        windows.add(view.window)
        anchors.add(view.anchor)
    assert anchors == {0, 1} and len(windows) > 50


def test_an_anchor_larger_than_the_crop_is_seen_in_part(bright_sample) -> None:
    ring = np.zeros((200, 200), np.uint8)
    ring[10:190, 10:190] = 1
    ring[20:180, 20:180] = 0
    sample, rng = bright_sample(ring), np.random.default_rng(0)
    for _ in range(100):
        view = choose_view(sample, data(crop=64), 64, rng)
        masks = choose_objects(sample.masks, view, data(crop=64), rng)
        assert masks.shape == (1, 64, 64) and masks.sum() > 100


@pytest.mark.parametrize(("scale", "scaled"), [(0.5, (43, 64)), (1.0, (85, 128)), (2.0, (85, 128))])
def test_scale_magnifies_or_shrinks(bright_sample, two_squares, scale: float, scaled: tuple[int, int]) -> None:
    view = choose_view(bright_sample(two_squares), data(scale=(scale, scale)), 128, np.random.default_rng(0))
    x1, y1, x2, y2 = view.window
    assert view.factor == pytest.approx(scale * 128 / 60)
    assert (x2 - x1, y2 - y1) == ((30, 20) if scale == 2 else (60, 40))
    assert view.frame(y2 - y1, x2 - x1, 128).scaled == scaled


def test_scale_jitter_is_log_uniform(bright_sample, two_squares) -> None:
    sample, rng = bright_sample(two_squares), np.random.default_rng(0)
    factors = [choose_view(sample, data(scale=(0.5, 2.0)), 60, rng).factor for _ in range(400)]
    assert min(factors) < 0.55 and max(factors) > 1.8
    assert np.median(factors) == pytest.approx(1, abs=0.15)


def test_objects_too_small_in_the_frame_are_not_chosen(bright_sample, two_squares) -> None:
    sample, rng = bright_sample(two_squares), np.random.default_rng(0)
    # At half size the squares of 100 and 225 pixels cover 25 and 56.
    for limit, count in [(25, 2), (26, 1)]:
        view = choose_view(sample, data(limit), 30, rng)
        assert len(choose_objects(sample.masks, view, data(limit), rng)) == count
    with pytest.raises(DataError, match=r"memory: the largest object covers 56\.2 pixels"):
        choose_view(sample, data(57), 30, rng)


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        (data(57), False),
        (data(57, crop=40), True),
        (data(57, crop=100), False),
        (data(57, scale=(0.1, 1.1)), True),
        (data(57, scale=(0.1, 1.0)), False),
        (data(57, crop=100, scale=(0.1, 2.0)), True),
    ],
)
def test_the_check_and_the_choice_agree(bright_sample, two_squares, config: DataConfig, fits: bool) -> None:
    sample, rng = bright_sample(two_squares), np.random.default_rng(0)
    if not fits:
        with pytest.raises(DataError) as caught:
            check_trainable(sample, config, 30)
        assert "min_object_area" in caught.value.remedy
        with pytest.raises(DataError):
            choose_view(sample, config, 30, rng)
        return
    check_trainable(sample, config, 30)
    for _ in range(50):
        view = choose_view(sample, config, 30, rng)
        chosen = choose_objects(sample.masks, view, config, rng)
        assert (chosen.sum(axis=(1, 2)) * view.factor**2 >= 57).all()


def test_at_most_max_objects_and_never_the_same_few(bright_sample) -> None:
    grid = np.kron(np.arange(1, 26).reshape(5, 5), np.ones((8, 8), int)).astype(np.uint8)
    sample, rng = bright_sample(grid), np.random.default_rng(0)
    config, seen = data(max_objects=4), set()
    for _ in range(60):
        view = choose_view(sample, config, 40, rng)
        chosen = choose_objects(sample.masks, view, config, rng)
        labels = [int(grid[mask][0]) for mask in chosen]
        assert len(set(labels)) == 4
        seen.update(labels)
    assert len(seen) == 25


@pytest.fixture
def scattered() -> np.ndarray:
    """``(64, 160)`` uint8: three squares, of 100, 36 and 16 pixels, in tiles of 64 that begin at 0, 48 and 96."""
    label_map = np.zeros((64, 160), np.uint8)
    label_map[5:15, 8:18] = 1
    label_map[30:36, 60:66] = 2  # of which the first tile shows 24 pixels
    label_map[60:64, 100:104] = 3
    return label_map


@pytest.mark.parametrize(
    ("least", "config", "lefts"),
    [
        (4, {}, [0, 48, 96]),
        (24, {}, [0, 48]),
        (25, {}, [0, 48]),
        (37, {}, [0]),
        (100, {}, [0]),
        (37, {"scale": (1.0, 2.0)}, [0, 48, 96]),
        (64, {"crop": 32}, [0, 48, 96]),
        (65, {"crop": 32}, [0, 48]),
        (97, {"crop": 32}, [0, 48]),
    ],
)
def test_tiles_to_train_on_are_those_that_can_be_trained_on(
    bright_sample, scattered, least: int, config: dict, lefts: list[int]
) -> None:
    sample, rng = bright_sample(scattered), np.random.default_rng(0)
    settings = data(least, tile=64, **config)
    assert trainable_tiles(sample, settings, 64) == [(left, 0, left + 64, 64) for left in lefts]
    for left in (0, 48, 96):
        part = sample.part((left, 0, left + 64, 64))
        assert np.array_equal(part.image, sample.image[:, left : left + 64])
        if left not in lefts:
            with pytest.raises(DataError):
                choose_view(part, settings, 64, rng)
            continue
        for _ in range(20):
            view = choose_view(part, settings, 64, rng)
            chosen = choose_objects(part.masks, view, settings, rng)
            assert (chosen.sum(axis=(1, 2)) * view.factor**2 >= least).all()


def test_an_image_no_tile_of_which_can_be_trained_on(bright_sample, scattered) -> None:
    with pytest.raises(DataError, match=r"in no tile an object covers 101 pixels") as caught:
        trainable_tiles(bright_sample(scattered), data(101, tile=64), 64)
    assert caught.value.fault == "too_small" and "data.tile" in caught.value.remedy


def test_an_object_that_every_tile_cuts_is_trained_on_in_parts(bright_sample) -> None:
    bar = np.zeros((64, 160), np.uint8)
    bar[10:20] = 1
    settings = data(600, tile=64)
    assert len(trainable_tiles(bright_sample(bar), settings, 64)) == 3
    with pytest.raises(DataError):
        trainable_tiles(bright_sample(bar), data(641, tile=64), 64)


def test_all_tiles_of_an_image_without_labels_and_one_of_a_small_image(bright_sample, two_squares) -> None:
    assert len(trainable_tiles(bright_sample(np.zeros((64, 160), np.uint8)), data(tile=64), 64)) == 3
    assert trainable_tiles(bright_sample(two_squares), data(tile=64), 64) == [(0, 0, 60, 40)]
    assert trainable_tiles(bright_sample(two_squares), data(), 64) == [(0, 0, 60, 40)]
