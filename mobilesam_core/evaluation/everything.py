"""Scoring automatic mask generation: of all there is in images, how much is found without a prompt."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilesam_core.amg.generator import FoundMask, SamAutomaticMaskGenerator
from mobilesam_core.amg.workflow import find_masks
from mobilesam_core.config.amg import AmgConfig
from mobilesam_core.data.sample import BadFile, Sample, SampleSource
from mobilesam_core.data.subset import spread
from mobilesam_core.evaluation.coco_metrics import CocoFigures, coco_figures
from mobilesam_core.evaluation.scoring import read_sample
from mobilesam_core.evaluation.summary import nothing_to_evaluate, plain_json
from mobilesam_core.evaluation.types import SIZE_CLASSES, SizeClass, size_class
from mobilesam_core.files import write_text
from mobilesam_core.ops.rle import encode_rle, rle_ious
from mobilesam_core.prediction.stored import StoredEmbeddings
from mobilesam_core.progress import NullReporter, Reporter
from mobilesam_core.runtime.protocol import EncodedImage

FOUND_AT = (0.5, 0.7)
"""An object is found when its best mask has at least this IoU with it."""


@dataclass(frozen=True)
class ImageFinds:
    """What was found in one image of n objects.

    key: names the image. shape: its ``(H, W)``. objects: n compressed RLEs of the truth, areas: their pixels.
    masks: best-scored first. best_ious: n, each of the mask that matches the object best; 0 without a mask.
    seconds: to find the masks; reading and scoring are not in it.
    """

    key: str
    shape: tuple[int, int]
    objects: tuple[dict[str, Any], ...]
    areas: tuple[int, ...]
    masks: tuple[FoundMask, ...]
    best_ious: tuple[float, ...]
    seconds: float


@dataclass(frozen=True)
class SizeFigures:
    """Figures of the objects of one size class: see :class:`EverythingSummary`."""

    objects: int
    found: dict[float, float]


@dataclass(frozen=True)
class EverythingSummary(CocoFigures):
    """The figures of all images.

    found: for each IoU of :data:`FOUND_AT` the share of objects found, whatever the masks' scores. by_size: of the
    size classes that occur. masks_per_image, seconds_per_image: means.
    """

    objects: int
    found: dict[float, float]
    by_size: dict[SizeClass, SizeFigures]
    masks_per_image: float
    seconds_per_image: float


@dataclass(frozen=True)
class EverythingEvaluation:
    """All that one evaluation found.

    failures: images that could not be read and objects without a pixel; they are in no figure.
    """

    settings: AmgConfig
    max_images: int | None
    finds: tuple[ImageFinds, ...]
    failures: tuple[BadFile, ...]
    summary: EverythingSummary

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return plain_json(
            {
                "options": {"max_images": self.max_images, "amg": self.settings.model_dump(mode="json")},
                "images": len(self.finds),
                "failures": [asdict(failure) for failure in self.failures],
                "everything": asdict(self.summary),
            }
        )

    def write(self, folder: Path) -> None:
        """Write ``detections.json`` (COCO's results format) and ``ground_truth.json``, which says what its ids mean.

        Raises:
            OutputError: a file cannot be written.
        """
        for name, document in (("ground_truth", _truth(self.finds)), ("detections", _detections(self.finds))):
            write_text(folder / f"{name}.json", json.dumps(document, allow_nan=False) + "\n")


def evaluate_everything(
    generator: SamAutomaticMaskGenerator,
    settings: AmgConfig,
    source: SampleSource,
    max_images: int | None = None,
    stored: StoredEmbeddings | None = None,
    reporter: Reporter | None = None,
) -> EverythingEvaluation:
    """Compare what ``generator`` finds in the images of ``source`` with their objects, at the images' own resolution.

    settings: those ``generator`` was built from. max_images: at most so many, evenly spread. An image that cannot be
    read, or is not among ``stored`` where that is given, and an object without a pixel become failures, with a warning
    each; the rest goes on.

    Raises:
        DataError: there is no object to evaluate.
    """
    reporter = reporter or NullReporter()
    finds: list[ImageFinds] = []
    failures: list[BadFile] = []
    indices = spread(len(source), max_images)
    with reporter.task("Evaluating", len(indices), "images") as task:
        for index in indices:
            read = read_sample(source, index, None, stored, failures, reporter)
            if read is not None:
                finds.append(_find(generator, settings, *read))
            task.advance()
    if not any(each.objects for each in finds):
        raise nothing_to_evaluate(failures)
    return EverythingEvaluation(settings, max_images, tuple(finds), tuple(failures), _summarise(finds))


def object_rles(sample: Sample, chosen: Sequence[int]) -> list[dict[str, Any]]:
    """The compressed RLEs of the ``chosen`` objects."""
    # One at a time: hundreds of dense masks of a large image would not fit into memory.
    return [encode_rle(sample.masks.dense([i])[0]) for i in chosen]


def _find(
    generator: SamAutomaticMaskGenerator,
    settings: AmgConfig,
    sample: Sample,
    chosen: Sequence[int],
    encoded: EncodedImage | None,
) -> ImageFinds:
    start = time.perf_counter()
    masks = find_masks(generator, settings, sample.image, encoded)
    seconds = time.perf_counter() - start
    objects = object_rles(sample, chosen)
    ious = rle_ious(objects, [each.rle for each in masks])
    return ImageFinds(
        key=sample.key,
        shape=sample.masks.shape,
        objects=tuple(objects),
        areas=tuple(sample.masks.areas[chosen].tolist()),
        masks=masks,
        best_ious=tuple(ious.max(axis=1, initial=0.0).tolist()),
        seconds=seconds,
    )


def _summarise(finds: Sequence[ImageFinds]) -> EverythingSummary:
    sizes = np.array([size_class(area) for each in finds for area in each.areas])
    ious = np.array([iou for each in finds for iou in each.best_ious])
    by_size = {
        size: SizeFigures(int((sizes == size).sum()), _found(ious[sizes == size]))
        for size in SIZE_CLASSES
        if (sizes == size).any()
    }
    return EverythingSummary(
        **vars(coco_figures(_truth(finds), _detections(finds))),
        objects=len(ious),
        found=_found(ious),
        by_size=by_size,
        masks_per_image=float(np.mean([len(each.masks) for each in finds])),
        seconds_per_image=float(np.mean([each.seconds for each in finds])),
    )


def _found(best_ious: np.ndarray) -> dict[float, float]:
    return {iou: float((best_ious >= iou).mean()) for iou in FOUND_AT}


def _truth(finds: Sequence[ImageFinds]) -> dict[str, Any]:
    """COCO's instances format: images numbered from 1, all objects of category 1."""
    objects = [
        {"image_id": number, "category_id": 1, "segmentation": rle, "area": area, "iscrowd": 0}
        for number, each in enumerate(finds, 1)
        for rle, area in zip(each.objects, each.areas, strict=True)
    ]
    return {
        "info": {},
        "images": [
            {"id": number, "file_name": each.key, "height": each.shape[0], "width": each.shape[1]}
            for number, each in enumerate(finds, 1)
        ],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [{"id": number, **each} for number, each in enumerate(objects, 1)],
    }


def _detections(finds: Sequence[ImageFinds]) -> list[dict[str, Any]]:
    # Without boxes: COCO's tools would take their areas for those of the masks.
    return [
        {"image_id": number, "category_id": 1, "segmentation": mask.rle, "score": mask.predicted_iou}
        for number, each in enumerate(finds, 1)
        for mask in each.masks
    ]
