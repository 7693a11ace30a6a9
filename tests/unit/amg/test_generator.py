from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from mobilesam_core.amg.generator import SamAutomaticMaskGenerator, Strategy, _Search
from mobilesam_core.amg.grid import Crop, coarse_to_fine, point_grid
from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.data.sample import Sample
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.errors import UsageError
from mobilesam_core.models.sam import Sam
from mobilesam_core.ops.rle import decode_rle, encode_rle, rle_ious
from mobilesam_core.runtime.torch_runtime import TorchRuntime

SETTINGS = {"points_per_side": 12, "pred_iou_thresh": 0.6, "stability_score_thresh": 0.6}


@pytest.fixture(scope="module")
def nano() -> Sam:
    return open_checkpoint("nano", image_size=256).model


@pytest.fixture(scope="module")
def scene() -> Sample:
    return ShapesSource(ShapesConfig(format="shapes", domains=("heap",), count=8, size=256, seed=11))[3]


def _found(generator: SamAutomaticMaskGenerator, image: np.ndarray) -> list[np.ndarray]:
    return [record["segmentation"] for record in generator.generate(image)]


def test_records_agree_with_their_masks(nano: Sam, scene: Sample) -> None:
    records = SamAutomaticMaskGenerator(nano, **SETTINGS).generate(scene.image)
    assert len(records) > 2
    scores = [record["predicted_iou"] for record in records]
    assert scores == sorted(scores, reverse=True) and min(scores) > 0.6
    for record in records:
        mask = record["segmentation"]
        assert mask.shape == (256, 256) and mask.dtype == bool and mask.sum() == record["area"] > 0
        rows, columns = np.nonzero(mask)
        x, y, width, height = record["bbox"]
        assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max(), rows.max())
        assert 0.6 <= record["stability_score"] <= 1 and record["crop_box"] == [0, 0, 256, 256]


def test_what_is_decoded_together_changes_nothing(nano: Sam, scene: Sample) -> None:
    one, many = (SamAutomaticMaskGenerator(nano, **SETTINGS, points_per_batch=n) for n in (1, 100))
    for a, b in zip(_found(one, scene.image), _found(many, scene.image), strict=True):
        assert (a != b).sum() <= 2


def test_a_known_encoding_is_used(nano: Sam, scene: Sample) -> None:
    generator = SamAutomaticMaskGenerator(nano, **SETTINGS)
    with torch.no_grad():
        encoded = TorchRuntime(nano).encode(scene.image)
    expected = generator.find(scene.image)
    found = generator.find(np.zeros_like(scene.image), encoded)
    assert [each.rle for each in found] == [each.rle for each in expected]


def _best_ious(masks: np.ndarray, among: np.ndarray) -> np.ndarray:
    both = (masks[:, None] & among).sum((2, 3)) / (masks[:, None] | among).sum((2, 3))
    return both.max(axis=1)


def test_coarse_to_fine_finds_most_of_what_the_grid_finds(nano: Sam) -> None:
    """Of drawn objects, on several scenes; and little that the grid does not."""
    by_grid = by_fewer = 0
    agreeing = []
    for scene in ShapesSource(ShapesConfig(format="shapes", domains=("heap",), count=6, size=256, seed=11)):
        objects = scene.masks.dense(range(len(scene.masks)))
        grid = np.stack(_found(SamAutomaticMaskGenerator(nano, **SETTINGS), scene.image))
        fewer = np.stack(_found(SamAutomaticMaskGenerator(nano, **SETTINGS, strategy="coarse-to-fine"), scene.image))
        by_grid += (_best_ious(objects, grid) > 0.6).sum()
        by_fewer += (_best_ious(objects, fewer) > 0.6).sum()
        agreeing.extend(_best_ious(fewer, grid) > 0.7)
    assert by_grid > 20 and by_fewer > 0.6 * by_grid and np.mean(agreeing) > 0.8


@torch.no_grad()
def test_coarse_to_fine_asks_again_where_the_image_differs(nano: Sam, scene: Sample) -> None:
    encoded = TorchRuntime(nano).encode(scene.image)
    # Two plain halves; the model's own embedding differs along the edges of the image too.
    halves = torch.zeros_like(encoded.embedding)
    halves[:, 0, :, :9] = 1
    halves[:, 1, :, 9:] = 1
    generator, whole = SamAutomaticMaskGenerator(nano, **SETTINGS), Crop((0, 0, 256, 256), 0)
    search = _Search(generator, replace(encoded, embedding=halves), whole, (256, 256))
    coarse, fine = (point_grid(8)[chosen] * 256 for chosen in coarse_to_fine(8))
    search.ask(coarse[coarse[:, 0] < 140])
    asked_next = fine[search.most_unlike(fine)]
    assert len(asked_next) == 12 and (asked_next[:, 0] > 144).all()


@pytest.mark.parametrize("points_per_side", [1, 3])
@pytest.mark.parametrize("strategy", ["grid", "coarse-to-fine"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (37, 3)])
def test_slivers(nano: Sam, shape: tuple[int, int], strategy: Strategy, points_per_side: int) -> None:
    image = np.full((*shape, 3), 90, np.uint8)
    generator = SamAutomaticMaskGenerator(
        nano, points_per_side, pred_iou_thresh=0, stability_score_thresh=0, crop_n_layers=1, strategy=strategy
    )
    for each in generator.find(image):
        assert decode_rle(each.rle).shape == shape


def test_tiles_find_what_the_whole_image_shows_too_small(nano: Sam) -> None:
    """Small discs, in rows that the tiles' borders cut through."""
    height, width = 384, 448
    labels = np.zeros((height, width), np.uint8)
    for number, (x, y) in enumerate(np.ndindex(9, 7)):
        cv2.circle(labels, (25 + 49 * x, 30 + 50 * y), 6, number + 1, -1)
    image = np.where(labels[..., None] > 0, 190, 60).repeat(3, axis=2).astype(np.uint8)
    discs = [labels == number for number in np.unique(labels)[1:]]
    found = {}
    for tile in (None, 192):
        generator = SamAutomaticMaskGenerator(nano, **{**SETTINGS, "points_per_side": 10}, tile=tile, overlap=64)
        found[tile] = generator.find(image)
    shares = {}
    for tile, masks in found.items():
        ious = rle_ious([encode_rle(disc) for disc in discs], [each.rle for each in masks])
        shares[tile] = (ious.max(axis=1, initial=0) > 0.7).mean()
        assert len({each.box for each in masks}) == len(masks)  # what two tiles show is found once
    assert shares[192] > shares[None] + 0.3
    for each in found[192]:
        assert decode_rle(each.rle).sum() == each.area
        left, top, right, bottom = each.crop.box
        x1, y1, x2, y2 = each.box
        assert left <= x1 <= x2 < right and top <= y1 <= y2 < bottom
        if each.crop.layer:  # cut by no border but the image's own
            assert (left == 0 or x1 - left > 20) and (right == width or right - x2 > 20)
            assert (top == 0 or y1 - top > 20) and (bottom == height or bottom - y2 > 20)


def test_an_image_of_one_tile_is_seen_whole(nano: Sam, scene: Sample) -> None:
    whole, tiled = (SamAutomaticMaskGenerator(nano, **SETTINGS, tile=tile) for tile in (None, 256))
    assert [each.rle for each in whole.find(scene.image)] == [each.rle for each in tiled.find(scene.image)]


def test_no_mask_is_no_error(nano: Sam, scene: Sample) -> None:
    assert SamAutomaticMaskGenerator(nano, 4, pred_iou_thresh=5.0).generate(scene.image) == []


@pytest.mark.parametrize(
    "given",
    [
        {"points_per_side": None},
        {"point_grids": [np.zeros((1, 2))]},
        {"output_mode": "polygons"},
        {"strategy": "random"},
        {"points_per_side": None, "point_grids": [np.zeros((1, 2))], "crop_n_layers": 1},
        {"points_per_side": None, "point_grids": [np.zeros((1, 2))], "strategy": "coarse-to-fine"},
        {"points_per_side": None, "point_grids": [np.zeros((1, 2))], "tile": 128},
        {"tile": 128, "crop_n_layers": 1},
        {"tile": 32},
        {"tile": 128, "overlap": 128},
    ],
)
def test_arguments_that_contradict(nano: Sam, given: dict) -> None:
    with pytest.raises(UsageError):
        SamAutomaticMaskGenerator(nano, **given)
