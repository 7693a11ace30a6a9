"""Which thresholds suit a model's own scores: those that find most of labelled objects for few masks.

What is found in a few images is kept with its scores, so that every pair of thresholds can be tried on it, exactly as
the generator would have kept and suppressed masks by it. The best pair has the highest F2 of the objects found,

    F2 = 5 · found / (masks + 4 · objects)

where ``found`` is the mean number of objects that are found at the IoUs of :data:`FOUND_AT`. F1 would take all that
the labels do not know for mistakes. If only a share c of what can be seen is labelled, F1 by complete labels is
proportional to F by these with beta² = 1/c: F2 is F1 where one thing in four is labelled. A missed object is lost; a
mask too many can be dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from mobilesam_core.amg.candidates import best_of_each
from mobilesam_core.amg.generator import FoundMask
from mobilesam_core.amg.workflow import build_generator, find_masks
from mobilesam_core.config.amg import AmgConfig, AmgThresholds
from mobilesam_core.data.sample import BadFile, Sample, SampleSource
from mobilesam_core.data.subset import spread
from mobilesam_core.evaluation.everything import FOUND_AT, object_rles
from mobilesam_core.evaluation.scoring import read_sample
from mobilesam_core.ops.frame import Frame, resize_image
from mobilesam_core.ops.masks import resize_masks
from mobilesam_core.ops.rle import encode_rle, rle_ious
from mobilesam_core.progress import Reporter
from mobilesam_core.runtime.protocol import Runtime

POINTS_PER_SIDE = 16
MARGIN = 0.02
"""The usual thresholds stay if their F2 is within this of the best, and they find anything."""

_USUAL = AmgThresholds()
_PREFIX = "usual_"  # of its figures in the log
# The strictest first: of equals it is chosen.
_PRED_IOU = sorted({_USUAL.pred_iou_thresh, *(number / 20 for number in range(2, 20))}, reverse=True)
_STABILITY = sorted({_USUAL.stability_score_thresh, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3}, reverse=True)


@dataclass(frozen=True)
class Yield:
    """What a pair of thresholds gives. found_50, found_70: the share of the objects found at an IoU of 0.5 and 0.7."""

    pred_iou_thresh: float
    stability_score_thresh: float
    found_50: float
    found_70: float
    masks_per_image: float
    f2: float

    @property
    def thresholds(self) -> AmgThresholds:
        return AmgThresholds(pred_iou_thresh=self.pred_iou_thresh, stability_score_thresh=self.stability_score_thresh)

    @property
    def sentence(self) -> str:
        return (
            f"{self.thresholds}: found@0.5 {self.found_50:.3f}, found@0.7 {self.found_70:.3f}, "
            f"{self.masks_per_image:.1f} masks an image"
        )


@dataclass(frozen=True)
class ThresholdChoice:
    """The best thresholds for ``images`` with ``objects``, beside the usual ones, which they may be."""

    images: int
    objects: int
    usual: Yield
    best: Yield

    @property
    def warning(self) -> str | None:
        """What to know before the weights are used to find everything; None where the usual thresholds do."""
        before, after = (each.found_50 + each.found_70 for each in (self.usual, self.best))
        if after == 0:
            return f"Without prompts these weights find none of the {self.objects} objects of {self.images} images."
        if self.usual.masks_per_image and before >= after / 2:
            return None
        return (
            f"By amg's usual thresholds these weights find few objects ({self.usual.sentence}); with others, which are "
            f"saved with them and which amg uses, more ({self.best.sentence})."
        )

    def to_values(self) -> dict[str, float]:
        """For the log."""
        usual = {f"{_PREFIX}{name}": value for name, value in asdict(self.usual).items()}
        return {"images": self.images, "objects": self.objects, **asdict(self.best), **usual}

    @staticmethod
    def from_values(values: Mapping[str, float]) -> ThresholdChoice:
        """What :meth:`to_values` gave; a KeyError names what is missing."""
        usual, best = (
            Yield(**{field.name: values[prefix + field.name] for field in fields(Yield)}) for prefix in (_PREFIX, "")
        )
        return ThresholdChoice(int(values["images"]), int(values["objects"]), usual, best)


def choose_thresholds(
    runtime: Runtime, source: SampleSource, images: int, reporter: Reporter, check_stop: Callable[[], None]
) -> ThresholdChoice | None:
    """The best thresholds for ``images`` of ``source``, evenly spread; None if they have no object.

    An image that cannot be read is warned of and left out. ``check_stop`` is called between images and may raise.
    """
    # What would not pass the loosest thresholds is of no interest, and nothing is suppressed yet.
    loosest = AmgConfig(
        points_per_side=POINTS_PER_SIDE,
        pred_iou_thresh=_PRED_IOU[-1],
        stability_score_thresh=_STABILITY[-1],
        box_nms_thresh=1.0,
    )
    generator = build_generator(runtime, loosest)
    counts = np.zeros((len(_STABILITY), len(_PRED_IOU), 1 + len(FOUND_AT)), np.int64)
    failures: list[BadFile] = []
    seen = objects = 0
    indices = spread(len(source), images)
    with reporter.task("Finding everything", len(indices), "images") as task:
        for index in indices:
            check_stop()
            read = read_sample(source, index, None, None, failures, reporter)
            if read is not None:
                sample, chosen, _ = read
                image, truth = _as_seen(sample, chosen, runtime.image_size)
                masks = find_masks(generator, loosest, image)
                counts += _counts(masks, rle_ious(truth, [each.rle for each in masks]))
                seen, objects = seen + 1, objects + len(chosen)
            task.advance()
    if not objects:
        return None
    yields = {
        (pred_iou, stability): _yield(pred_iou, stability, counts[s, p], seen, objects)
        for s, stability in enumerate(_STABILITY)
        for p, pred_iou in enumerate(_PRED_IOU)
    }
    usual = yields[_USUAL.pred_iou_thresh, _USUAL.stability_score_thresh]
    best = max(yields.values(), key=lambda each: each.f2)
    stays = usual.f2 >= best.f2 - MARGIN and (usual.f2 > 0 or best.f2 == 0)
    return ThresholdChoice(seen, objects, usual, usual if stays else best)


def _as_seen(sample: Sample, chosen: Sequence[int], side: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The image and the RLEs of its objects ``chosen``, no larger than an input of ``side`` pixels.

    A model sees no more of a photograph of 12 megapixels, and to measure hundreds of masks there takes minutes.
    """
    height, width = sample.masks.shape
    frame = Frame.of(height, width, side)
    if max(height, width) <= side:
        return sample.image, object_rles(sample, chosen)
    scaled = (resize_masks(sample.masks.dense([i]), frame.scaled)[0] for i in chosen)
    return resize_image(sample.image, frame), [encode_rle(mask) for mask in scaled]


def _counts(masks: tuple[FoundMask, ...], ious: np.ndarray) -> np.ndarray:
    """For each pair of thresholds: masks, and objects found at each of :data:`FOUND_AT`; ``(S, P, 1 + F)`` int64.

    masks: M that nothing suppressed, best-scored first. ious: ``(N, M)`` with the objects.
    """
    scores = np.array([each.predicted_iou for each in masks], np.float32)
    stability = np.array([each.stability_score for each in masks], np.float32)
    boxes = np.array([each.box for each in masks]).reshape(-1, 4)
    counts = np.zeros((len(_STABILITY), len(_PRED_IOU), 1 + len(FOUND_AT)), np.int64)
    for s, least_stability in enumerate(_STABILITY):
        stable = np.flatnonzero(stability >= least_stability)
        # A mask is suppressed by better-scored ones alone: what the threshold on scores drops makes no difference.
        left = stable[best_of_each(boxes[stable], scores[stable], AmgConfig().box_nms_thresh)]
        for p, pred_iou in enumerate(_PRED_IOU):
            kept = left[scores[left] > pred_iou]
            best = ious[:, kept].max(axis=1, initial=0.0)
            counts[s, p, 0] = len(kept)
            counts[s, p, 1:] = [np.count_nonzero(best >= iou) for iou in FOUND_AT]
    return counts


def _yield(pred_iou: float, stability: float, counts: np.ndarray, images: int, objects: int) -> Yield:
    masks, *found = counts.tolist()
    return Yield(
        pred_iou_thresh=pred_iou,
        stability_score_thresh=stability,
        found_50=found[0] / objects,
        found_70=found[1] / objects,
        masks_per_image=masks / images,
        f2=5 * float(np.mean(found)) / (masks + 4 * objects),
    )
