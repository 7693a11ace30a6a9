from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mobilesam_core.config.data import AugmentConfig, DataConfig, ShapesConfig
from mobilesam_core.config.prompts import PromptConfig
from mobilesam_core.data.folder import FolderSource
from mobilesam_core.data.sample import SampleSource
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.data.training_set import FramedSample, TrainingSet, collate
from mobilesam_core.data.verify import find_tiles
from mobilesam_core.data.view import SeenView
from mobilesam_core.ops.placement import Placement
from mobilesam_core.progress import NullReporter
from mobilesam_core.prompts.types import ABSENT

SHAPES = ShapesConfig(format="shapes", count=6, size=64, max_shapes=5)
GEOMETRY = {"horizontal_flip": 0.5, "vertical_flip": 0.5, "transpose": 0.5}
COLOUR = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.05}


def training_set(
    source: SampleSource | None = None, size: int = 64, loss_size: int = 16, seed: int = 0, **augment: object
) -> TrainingSet:
    data = DataConfig(train=SHAPES, max_objects=3, augment=AugmentConfig(**augment))
    prompts = PromptConfig(max_points=3)
    return TrainingSet(source or ShapesSource(SHAPES), data, prompts, size, loss_size, seed)


def same(a: FramedSample, b: FramedSample) -> bool:
    return (
        torch.equal(a.image, b.image)
        and torch.equal(a.targets, b.targets)
        and all(
            np.array_equal(p.points, q.points) and (p.box is q.box is None or np.array_equal(p.box, q.box))
            for p, q in zip(a.prompts, b.prompts, strict=True)
        )
    )


def l_shape() -> np.ndarray:
    """``(48, 80)``: one object that no flip, turn or transposition maps onto itself."""
    label_map = np.zeros((48, 80), np.uint8)
    label_map[6:40, 10:22] = 1
    label_map[30:40, 10:60] = 1
    return label_map


@pytest.mark.parametrize(
    ("augment", "smallest_view"),
    [
        ({}, 80),
        (GEOMETRY, 80),
        ({**GEOMETRY, **COLOUR}, 80),
        ({**GEOMETRY, "scale": (0.4, 2.5)}, 32),
        ({**GEOMETRY, **COLOUR, "scale": (0.7, 1.5), "crop": 40}, 27),
        ({**GEOMETRY, "crop": 200}, 200),
    ],
)
@pytest.mark.parametrize("size", [64, 192])
def test_image_and_mask_agree_after_augmentation(
    memory_source, bright_sample, augment: dict, smallest_view: int, size: int
) -> None:
    dataset = training_set(memory_source([bright_sample(l_shape())]), size, loss_size=size, **augment)
    looks = set()
    for epoch in range(24):
        item = dataset[epoch, 0]
        height, width = item.image.shape[1:]
        assert max(height, width) <= size
        brightness = item.image.float().mean(0)
        shown = brightness > (brightness.min() + brightness.max()) / 2
        mask = item.targets[0, :height, :width] > 0.5
        assert item.targets[0].sum() == mask.sum()  # nothing in the padding
        # They may differ by a source pixel along the outline, nowhere else.
        reach = max(1, round(size / smallest_view))
        neighbours = F.avg_pool2d(mask[None].float(), 2 * reach + 1, 1, reach, count_include_pad=False)[0]
        inside, outside = neighbours == 1, neighbours == 0
        assert shown[inside].all() and not shown[outside].any() and outside.any() and mask.sum() > 20
        looks.add(mask.numpy().tobytes())
    assert len(looks) > 4 if augment else len(looks) == 1


def test_prompts_belong_to_their_objects() -> None:
    dataset = training_set(loss_size=64, **GEOMETRY, scale=(0.6, 1.6), crop=48)
    boxes = points = 0
    for epoch in range(5):
        for index in range(len(dataset)):
            item = dataset[epoch, index]
            height, width = item.image.shape[1:]
            assert 1 <= len(item.prompts) == len(item.targets) <= 3
            for prompt, target in zip(item.prompts, item.targets.numpy(), strict=True):
                for x, y in prompt.points.astype(int):
                    points += 1
                    assert target[y, x] == 1
                if prompt.box is not None:
                    boxes += 1
                    x1, y1, x2, y2 = prompt.box
                    assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
                    assert target[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))].any()
    assert boxes > 10 and points > 10


def test_targets_are_the_coverage_of_each_cell() -> None:
    fine, coarse = training_set(loss_size=64)[1], training_set(loss_size=16)[1]
    expected = fine.targets.reshape(-1, 16, 4, 16, 4).mean(dim=(2, 4))
    torch.testing.assert_close(coarse.targets, expected)
    assert coarse.targets.dtype == torch.float32 and ((expected > 0) & (expected < 1)).any()


def test_an_item_is_a_function_of_seed_epoch_and_index() -> None:
    augment = {**GEOMETRY, **COLOUR, "scale": (0.8, 1.2)}
    dataset = training_set(**augment)
    state = torch.get_rng_state()
    first = dataset[2, 3]
    torch.rand(7)
    np.random.seed(1)
    assert same(first, training_set(**augment)[2, 3])
    assert not same(first, dataset[3, 3])
    assert not same(first, training_set(seed=1, **augment)[2, 3])
    dataset.set_epoch(2)
    assert same(first, dataset[3])
    torch.set_rng_state(state)
    dataset[4, 4]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("augment", [{}, {**GEOMETRY, **COLOUR}])
def test_grey_images(augment: dict) -> None:
    item = training_set(ShapesSource(SHAPES, channels=1), **augment)[0]
    assert item.image.shape == (1, 64, 64) and item.image.dtype == torch.uint8


def test_grey_files_of_the_frame_s_size(write_folder, two_squares: np.ndarray, tmp_path: Path) -> None:
    source = FolderSource(write_folder("instances", {"a": two_squares}), tmp_path, channels=1)
    assert training_set(source, size=60)[0].image.shape == (1, 40, 60)  # no warning about memory PIL owns


def test_collate_pads_and_lines_up(memory_source, bright_sample, two_squares: np.ndarray) -> None:
    source = memory_source([bright_sample(two_squares), bright_sample(l_shape())])
    dataset = training_set(source, size=128, loss_size=32)
    items = [dataset[0], dataset[1]]
    batch = collate(items)
    assert batch.images.shape == (2, 3, 128, 128) and batch.images.dtype == torch.uint8
    assert batch.sizes.tolist() == [[85, 128], [77, 128]] and batch.sizes.dtype == torch.int64
    assert batch.images[0, :, 85:].max() == 0 and torch.equal(batch.images[0, :, :85], items[0].image)
    assert batch.image_index.tolist() == [0, 0, 1]
    assert batch.targets.shape == (3, 32, 32) and len(batch.prompts) == 3
    assert list(batch.sources) == ["memory", "memory"]
    lengths = (batch.prompts.labels != ABSENT).sum(dim=1).tolist()
    expected = [2 if p.box is not None else len(p.points) + 1 for item in items for p in item.prompts]
    assert lengths == expected


def tiled_set(source: SampleSource, size: int = 128, views: int | None = None, **augment: object) -> TrainingSet:
    """Of tiles of 64 pixels, with masks as fine as the frame."""
    data = DataConfig(train=SHAPES, tile=64, overlap=16, augment=AugmentConfig(**augment), min_object_area=40)
    tiles, bad = find_tiles(source, data, size, NullReporter(), "")
    assert not bad
    return TrainingSet(source, data, PromptConfig(), size, size, 0, views=views, tiles=tiles)


@pytest.fixture
def wide(memory_source, bright_sample) -> SampleSource:
    """An image of ``(48, 160)`` with an L in its first tile and a square in its last, and one of a single tile."""
    label_map = np.zeros((48, 160), np.uint8)
    label_map[:, :48] = l_shape()[:, :48] > 0
    label_map[30:44, 120:134] = 2
    return memory_source([bright_sample(label_map), bright_sample(l_shape()[:, :60])])


def test_items_are_the_tiles_that_hold_an_object(wide: SampleSource) -> None:
    dataset = tiled_set(wide)
    assert len(dataset) == 3
    assert [dataset[i].view for i in range(3)] == [
        SeenView("memory", (0, 0, 64, 48), "2"),
        SeenView("memory", (96, 0, 160, 48), "2"),
        SeenView("memory", (0, 0, 60, 48), ""),  # all of it, as it is
    ]
    first, last = dataset[0], dataset[1]
    assert first.size == (96, 128) and [len(item.targets) for item in (first, last)] == [1, 1]
    assert last.targets[0].sum() == 4 * 14**2 and last.targets[0, 60:88, 48:76].all()
    with pytest.raises(ValueError, match="find_tiles"):
        TrainingSet(wide, DataConfig(train=SHAPES, tile=64, overlap=16), PromptConfig(), 64, 16, 0)


@pytest.mark.parametrize("views", [None, 2])
@pytest.mark.parametrize(
    "augment", [{**GEOMETRY, **COLOUR}, {**GEOMETRY, "scale": (0.5, 2.0)}, {"crop": 32, "scale": (0.8, 1.2)}]
)
def test_image_mask_and_place_agree_in_augmented_tiles(wide: SampleSource, augment: dict, views: int | None) -> None:
    dataset, seen = tiled_set(wide, views=views, **augment), set()
    placements: list[Placement] = []

    class Features:
        def read(self, source: str, placement: Placement | None = None) -> dict:
            placements.append(placement)
            return {}

    dataset._features = Features()
    for epoch in range(8):
        for index in (0, 1):
            item = dataset[epoch, index]
            left, top, right, bottom = item.view.window
            limits = ((0, 64), (96, 160))[index]
            assert limits[0] <= left < right <= limits[1] and top >= 0 and bottom <= 48
            brightness = item.image.float().mean(0)
            shown = brightness > (brightness.min() + brightness.max()) / 2
            mask = item.targets.amax(0)[: item.size[0], : item.size[1]] > 0.5
            assert (shown == mask).float().mean() > 0.95 and mask.any()
            corners = np.array([[0, 0], [item.size[1], item.size[0]]]) / item.frame_size
            placed = (corners @ placements[-1].matrix.T + placements[-1].offset) * (160, 48)
            assert np.allclose(np.sort(placed, axis=0), [[left, top], [right, bottom]], atol=0.6)
            seen.add(item.view)
    assert len(seen) > 4 if views is None else len(seen) <= 4
