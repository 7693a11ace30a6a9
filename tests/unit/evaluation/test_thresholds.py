from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mobilesam_core.amg.generator import FoundMask
from mobilesam_core.amg.grid import Crop
from mobilesam_core.amg.workflow import build_generator
from mobilesam_core.checkpoints.loading import open_checkpoint
from mobilesam_core.config.amg import AmgConfig, AmgThresholds
from mobilesam_core.config.data import ShapesConfig
from mobilesam_core.data.sample import Sample
from mobilesam_core.data.shapes import ShapesSource
from mobilesam_core.evaluation import thresholds
from mobilesam_core.evaluation.everything import evaluate_everything
from mobilesam_core.evaluation.thresholds import POINTS_PER_SIDE, ThresholdChoice, choose_thresholds
from mobilesam_core.ops.masks import DenseMasks, resize_masks
from mobilesam_core.ops.rle import encode_rle
from mobilesam_core.progress import NullReporter
from mobilesam_core.runtime.torch_runtime import TorchRuntime

SIDE = 200
Scored = tuple[np.ndarray, float, float]


def square(number: int, height: int = 10) -> np.ndarray:
    """Of up to 100 squares that do not touch, 10 pixels wide."""
    mask = np.zeros((SIDE, SIDE), bool)
    top, left = 20 * (number // 10), 20 * (number % 10)
    mask[top : top + height, left : left + 10] = True
    return mask


class Drawn:
    """A source of one image of the first so many squares."""

    def __init__(self, objects: int) -> None:
        masks = np.stack([square(i) for i in range(objects)]) if objects else np.zeros((0, SIDE, SIDE), bool)
        self._sample = Sample("0.png", np.zeros((SIDE, SIDE, 3), np.uint8), DenseMasks(masks), "0.png")

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return self._sample

    def describe(self, index: int) -> str:
        return "0.png"


def choose(
    monkeypatch: pytest.MonkeyPatch, objects: int, found: Sequence[Scored], image_size: int = SIDE
) -> ThresholdChoice | None:
    """The choice for masks, predicted IoUs and stabilities that a model is said to have found."""

    class Finder:
        def find(self, image: np.ndarray, encoded: None) -> list[FoundMask]:
            assert image.shape[:2] == (min(SIDE, image_size),) * 2
            masks = []
            for mask, score, stability in found:
                mask = resize_masks(mask[None], image.shape[:2])[0]
                rows, columns = np.nonzero(mask)
                box = (int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max()))
                whole = Crop((0, 0, SIDE, SIDE), 0)
                masks.append(FoundMask(encode_rle(mask), int(mask.sum()), box, score, stability, (0.0, 0.0), whole))
            return masks

    monkeypatch.setattr(thresholds, "build_generator", lambda *_: Finder())
    runtime: Any = SimpleNamespace(image_size=image_size)
    return choose_thresholds(runtime, Drawn(objects), 4, NullReporter(), lambda: None)


def test_thresholds_part_the_objects_from_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    good = [(square(i), 0.52, 0.65) for i in range(4)]
    worse_scored = [(square(i), 0.42, 0.65) for i in range(10, 30)]
    less_stable = [(square(i), 0.52, 0.55) for i in range(30, 50)]
    choice = choose(monkeypatch, 4, [*good, *worse_scored, *less_stable])
    assert choice is not None and (choice.images, choice.objects) == (1, 4)
    assert choice.best.thresholds == AmgThresholds(pred_iou_thresh=0.5, stability_score_thresh=0.6)
    assert (choice.best.f2, choice.best.found_50, choice.best.masks_per_image) == (1.0, 1.0, 4.0)
    assert choice.usual.thresholds == AmgThresholds() and choice.usual.masks_per_image == 0
    assert choice.warning is not None and "few objects" in choice.warning and "pred_iou_thresh 0.5" in choice.warning
    assert ThresholdChoice.from_values(choice.to_values()) == choice


def test_figures_reckoned_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of four objects are found, one of them at 0.5 alone; a mask of nothing counts against F2, one suppressed by
    a better-scored mask does not."""
    found = [(square(0), 0.99, 1.0), (square(0, 9), 0.98, 1.0), (square(1, 6), 0.97, 1.0), (square(50), 0.96, 1.0)]
    choice = choose(monkeypatch, 4, found)
    assert choice is not None
    assert (choice.best.found_50, choice.best.found_70, choice.best.masks_per_image) == (0.5, 0.25, 3.0)
    assert choice.best.f2 == pytest.approx(5 * 1.5 / (3 + 4 * 4))


def test_an_unstable_mask_suppresses_nothing_once_it_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(square(0, 9), 0.99, 0.4), (square(0), 0.97, 0.99), *((square(i), 0.9, 0.4) for i in range(60, 90))]
    choice = choose(monkeypatch, 1, found)
    assert choice is not None and choice.best == choice.usual and choice.best.found_70 == 1.0


@pytest.mark.parametrize(("junk", "stays"), [(1, True), (60, False)])
def test_the_usual_thresholds_stay_where_others_are_hardly_better(
    monkeypatch: pytest.MonkeyPatch, junk: int, stays: bool
) -> None:
    good = [(square(i), 0.96, 1.0) for i in range(30)]
    choice = choose(monkeypatch, 30, [*good, *((square(30 + i), 0.93, 1.0) for i in range(junk))])
    assert choice is not None and (choice.best == choice.usual) is stays
    assert choice.warning is None  # the objects are found either way


def test_nothing_to_find_and_nothing_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(monkeypatch, 0, [(square(0), 0.9, 1.0)]) is None
    choice = choose(monkeypatch, 2, [])
    assert choice is not None and choice.best == choice.usual
    assert choice.warning is not None and "find none of the 2 objects" in choice.warning


def test_figures_are_those_of_an_evaluation_with_these_thresholds() -> None:
    source = ShapesSource(ShapesConfig(format="shapes", domains=("polygons",), count=2, size=128, seed=5))
    runtime = TorchRuntime(open_checkpoint("nano", image_size=128).model)
    choice = choose_thresholds(runtime, source, 2, NullReporter(), lambda: None)
    assert choice is not None and choice.best.found_50 > 0.3
    for each in (choice.usual, choice.best):
        settings = AmgConfig(points_per_side=POINTS_PER_SIDE, **each.thresholds.model_dump())
        summary = evaluate_everything(build_generator(runtime, settings), settings, source).summary
        assert summary.masks_per_image == each.masks_per_image
        assert summary.found == {0.5: each.found_50, 0.7: each.found_70}


def test_an_image_is_looked_at_no_larger_than_the_model_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = choose(monkeypatch, 4, [(square(i), 0.9, 0.96) for i in range(4)], image_size=SIDE // 2)
    assert choice is not None and (choice.usual.found_70, choice.usual.masks_per_image) == (1.0, 4.0)
