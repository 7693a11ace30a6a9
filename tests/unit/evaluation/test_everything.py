from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mobilesam_core.amg.generator import FoundMask
from mobilesam_core.amg.grid import Crop
from mobilesam_core.config.amg import AmgConfig
from mobilesam_core.data.sample import Sample
from mobilesam_core.errors import DataError
from mobilesam_core.evaluation.coco_metrics import CocoFigures, coco_figures
from mobilesam_core.evaluation.everything import EverythingEvaluation, evaluate_everything
from mobilesam_core.evaluation.types import size_class
from mobilesam_core.ops.masks import DenseMasks
from mobilesam_core.ops.rle import encode_rle

SIDE = 200
Scored = tuple[float, np.ndarray]


def box(x: int, y: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[y : y + height, x : x + width] = True
    return mask


def squares(count: int) -> list[np.ndarray]:
    """Up to 400 masks of 5 x 5 pixels that do not touch."""
    return [box(10 * (i % 20), 10 * (i // 20), 5, 5) for i in range(count)]


def figures(objects: Sequence[np.ndarray], found: Sequence[Scored]) -> CocoFigures:
    """The figures of one image."""
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "height": SIDE, "width": SIDE}],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [
            {
                "id": number,
                "image_id": 1,
                "category_id": 1,
                "segmentation": encode_rle(mask),
                "area": int(mask.sum()),
                "iscrowd": 0,
            }
            for number, mask in enumerate(objects, 1)
        ],
    }
    detections = [
        {"image_id": 1, "category_id": 1, "segmentation": encode_rle(mask), "score": score} for score, mask in found
    ]
    before = json.dumps([truth, detections])
    result = coco_figures(truth, detections)
    assert json.dumps([truth, detections]) == before
    return result


def test_perfect_masks_score_one() -> None:
    objects = [box(0, 0, 20, 20), box(50, 50, 50, 50), box(100, 100, 100, 100)]
    result = figures(objects, [(0.9, mask) for mask in objects])
    assert result == CocoFigures(1.0, 1.0, 1.0, 1.0, 1.0, {"small": 1.0, "medium": 1.0, "large": 1.0})


def test_half_of_the_objects() -> None:
    objects = squares(8)
    result = figures(objects, [(0.9, mask) for mask in objects[::2]])
    assert result.ar_100 == result.ar_1000 == 0.5
    # COCO looks at precision at the 101 recalls 0, 0.01, … 1, of which 51 are reached.
    assert result.ap == result.ap_50 == result.ap_75 == pytest.approx(51 / 101)


def test_a_case_reckoned_by_hand() -> None:
    """A false mask, then a perfect one, then one of IoU 5/8, which counts at the IoUs 0.50, 0.55 and 0.60."""
    objects = [box(0, 0, 8, 8), box(40, 40, 8, 8)]
    found = [(0.9, box(100, 100, 8, 8)), (0.8, objects[0]), (0.7, box(40, 40, 8, 5))]
    result = figures(objects, found)
    # Precision: 0, 1/2, 2/3 at recalls 0, 1/2, 1; what is reached at a higher recall counts at lower ones.
    both, one = 2 / 3, 51 / 101 * 1 / 2
    assert result.ap_50 == pytest.approx(both)
    assert result.ap_75 == pytest.approx(one)
    assert result.ap == pytest.approx((3 * both + 7 * one) / 10)
    assert result.ar_100 == result.ar_1000 == pytest.approx((3 * 1 + 7 * 0.5) / 10)


def test_more_than_100_masks_count() -> None:
    objects = squares(150)
    result = figures(objects, [(1 - i / 1000, mask) for i, mask in enumerate(objects)])
    assert result.ar_100 == pytest.approx(100 / 150)
    assert result.ar_1000 == result.ap == 1.0
    assert result.ar_1000_by_size == {"small": 1.0}


def test_the_thousand_best_scored_count_and_no_more() -> None:
    (wanted,) = squares(1)
    wrong = [(0.9, box(100, 100, 5, 5))] * 999
    assert figures([wanted], [*wrong, (0.5, wanted)]).ar_1000 == 1.0
    assert figures([wanted], [*wrong, wrong[0], (0.5, wanted)]).ar_1000 == 0.0


def test_every_object_is_of_one_size() -> None:
    assert figures([box(0, 0, 32, 32)], []).ar_1000_by_size == {"medium": 0.0}
    assert figures([box(0, 0, 96, 96)], []).ar_1000_by_size == {"large": 0.0}


@dataclass
class Listed:
    """A source of given samples; an error in their place is raised."""

    samples: list[Sample | DataError]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        if isinstance(sample, DataError):
            raise sample
        return sample

    def describe(self, index: int) -> str:
        return f"file {index}"


@dataclass
class Finder:
    """Stands in for a generator: images are numbered by their pixels, and it knows what is in each."""

    found: Sequence[Sequence[Scored]]

    def find(self, image: np.ndarray, encoded: None = None) -> list[FoundMask]:
        whole = Crop((0, 0, SIDE, SIDE), 0)
        return [
            FoundMask(encode_rle(mask), int(mask.sum()), (0, 0, 1, 1), score, 1.0, (0.0, 0.0), whole)
            for score, mask in self.found[int(image[0, 0, 0])]
        ]


def sample(number: int, objects: Sequence[np.ndarray]) -> Sample:
    masks = np.stack(objects) if objects else np.zeros((0, SIDE, SIDE), bool)
    return Sample(f"{number}.png", np.full((SIDE, SIDE, 3), number, np.uint8), DenseMasks(masks), f"in/{number}.png")


def evaluate(
    samples: Sequence[Sample | DataError], found: Sequence[Sequence[Scored]], **settings: Any
) -> EverythingEvaluation:
    chosen = AmgConfig(**settings)
    return evaluate_everything(Finder(found), chosen, Listed(list(samples)))  # type: ignore[arg-type]


def scene(rng: np.random.Generator) -> tuple[list[np.ndarray], list[Scored]]:
    """Overlapping boxes of all sizes, and masks that are near some of them."""
    places = [(*rng.integers(0, 90, 2), *rng.integers(4, 110, 2)) for _ in range(12)]
    objects = [box(*place) for place in places]
    found = []
    for place in places[:9]:
        x, y, width, height = (max(1, int(side + rng.integers(-4, 5))) for side in place)
        found.append((float(rng.random()), box(x, y, width, height)))
    return objects, [*found, (0.99, box(0, 150, 40, 40))]


def test_figures_are_those_of_pycocotools_and_of_numpy(tmp_path: Path) -> None:
    scenes = [scene(np.random.default_rng(seed)) for seed in range(4)]
    samples = [sample(i, objects) for i, (objects, _) in enumerate(scenes)]
    found = [masks for _, masks in scenes]
    result = evaluate(samples, found)
    result.write(tmp_path)

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "ground_truth.json"))
        reference = COCOeval(truth, truth.loadRes(str(tmp_path / "detections.json")), "segm")
        reference.params.maxDets = [1, 100, 1000]
        reference.evaluate()
        reference.accumulate()
    recall, precision = reference.eval["recall"][:, 0], reference.eval["precision"][:, :, 0, 0, -1]
    summary = result.summary
    assert summary.ar_100 == pytest.approx(recall[:, 0, 1].mean())
    assert summary.ar_1000 == pytest.approx(recall[:, 0, 2].mean())
    assert list(summary.ar_1000_by_size.values()) == pytest.approx(recall[:, 1:, 2].mean(axis=0))
    assert (summary.ap, summary.ap_50, summary.ap_75) == pytest.approx(
        (precision.mean(), precision[0].mean(), precision[5].mean())
    )
    assert 0 < summary.ap < 1

    best, sizes = [], []
    for objects, masks in scenes:
        for wanted in objects:
            best.append(max((wanted & mask).sum() / (wanted | mask).sum() for _, mask in masks))
            sizes.append(size_class(int(wanted.sum())))
    best, sizes = np.array(best), np.array(sizes)
    assert summary.objects == len(best) == 48
    assert summary.found == {iou: pytest.approx((best >= iou).mean()) for iou in (0.5, 0.7)}
    assert set(summary.by_size) == {"small", "medium", "large"}
    for size, of_size in summary.by_size.items():
        assert of_size.objects == (sizes == size).sum()
        assert of_size.found == {iou: pytest.approx((best[sizes == size] >= iou).mean()) for iou in (0.5, 0.7)}
    assert summary.masks_per_image == 10


def test_an_iou_of_exactly_the_limit_is_found() -> None:
    result = evaluate([sample(0, [box(0, 0, 10, 10)])], [[(0.9, box(0, 0, 10, 7))]])
    assert result.summary.found == {0.5: 1.0, 0.7: 1.0}
    result = evaluate([sample(0, [box(0, 0, 10, 10)])], [[(0.9, box(0, 0, 10, 5))]])
    assert result.summary.found == {0.5: 1.0, 0.7: 0.0}


def test_nothing_found_and_nothing_to_find() -> None:
    objects = squares(2)
    nothing = evaluate([sample(0, objects)], [[]]).summary
    assert (nothing.ar_1000, nothing.ap, nothing.found[0.5], nothing.masks_per_image) == (0.0, 0.0, 0.0, 0.0)
    # Masks in an image without an object are mistakes.
    masks = [(0.9, mask) for mask in objects]
    mistaken = evaluate([sample(0, objects), sample(1, [])], [masks, [(0.95, mask) for mask in squares(4)]]).summary
    assert mistaken.ar_1000 == 1.0 and mistaken.masks_per_image == 3
    assert mistaken.ap == pytest.approx(2 / 6)
    with pytest.raises(DataError, match="no object to evaluate"):
        evaluate([sample(0, [])], [masks])


def test_settings_limit_the_masks() -> None:
    objects = [box(0, 0, 5, 5), box(50, 50, 20, 20), box(100, 100, 20, 20)]
    masks = [(0.9 - i / 10, mask) for i, mask in enumerate(objects)]
    assert evaluate([sample(0, objects)], [masks], min_area=100).summary.found[0.5] == pytest.approx(2 / 3)
    best = evaluate([sample(0, objects)], [masks], max_masks=1)
    assert best.summary.masks_per_image == 1 and best.finds[0].best_ious == (1.0, 0.0, 0.0)


def test_bad_images_and_empty_objects_are_listed_and_the_rest_goes_on() -> None:
    objects = [*squares(2), np.zeros((SIDE, SIDE), bool)]
    samples = [DataError("a.png is empty (0 bytes).", "Replace it."), sample(0, objects)]
    result = evaluate(samples, [[(0.9, mask) for mask in objects[:2]]])
    assert [(f.index, f.source) for f in result.failures] == [(0, "file 0"), (1, "in/0.png")]
    assert result.failures[0].problem == "a.png is empty (0 bytes)." and "Object 2" in result.failures[1].problem
    assert len(result.finds) == 1 and result.summary.objects == 2 and result.summary.ap == 1.0
    document = result.to_json()
    assert json.loads(json.dumps(document)) == document
    assert document["images"] == 1 and len(document["failures"]) == 2
    assert document["everything"]["by_size"] == {"small": {"objects": 2, "found": {"0.5": 1.0, "0.7": 1.0}}}
