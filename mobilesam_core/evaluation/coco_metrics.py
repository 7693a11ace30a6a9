"""COCO's average recall and precision of masks, without classes (Lin et al., "Microsoft COCO", 2014)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobilesam_core.evaluation.types import LARGE_FROM, MEDIUM_FROM, SIZE_CLASSES, SizeClass
from mobilesam_core.ops.rle import rle_areas

_MAX_MASKS = [100, 1000]
_LARGEST_AREA = 1e10
# Both ends belong to a range: an object of 1024 pixels must not be small and medium at once.
_AREA_RANGES = [
    [0, _LARGEST_AREA],
    [0, MEDIUM_FROM - 1],
    [MEDIUM_FROM, LARGE_FROM - 1],
    [LARGE_FROM, _LARGEST_AREA],
]


@dataclass(frozen=True)
class CocoFigures:
    """Average recall and precision in [0, 1], over the IoUs 0.50, 0.55, … 0.95.

    ar_100, ar_1000: recall of the 100 and 1000 best-scored masks of each image. ap: average precision of the 1000
    best-scored (COCO's own counts 100); ap_50, ap_75: at one IoU. ar_1000_by_size: of the size classes that occur.
    """

    ar_100: float
    ar_1000: float
    ap: float
    ap_50: float
    ap_75: float
    ar_1000_by_size: dict[SizeClass, float]


def coco_figures(truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> CocoFigures:
    """Score ``detections`` (COCO's results format, category 1) against ``truth`` (its instances format).

    Ids are positive, segmentations compressed RLEs; ``truth`` has at least one object.
    """
    # Slow to import, and needed only here.
    from faster_coco_eval import COCO, COCOeval_faster

    areas = rle_areas([each["segmentation"] for each in detections]).tolist()
    numbered = [
        {**each, "id": number, "area": area, "iscrowd": 0}
        for number, (each, area) in enumerate(zip(detections, areas, strict=True), 1)
    ]
    # It writes into the annotations.
    objects = [dict(each) for each in truth["annotations"]]
    scorer = COCOeval_faster(COCO({**truth, "annotations": objects}), COCO({**truth, "annotations": numbered}), "segm")
    scorer.params.maxDets = _MAX_MASKS
    scorer.params.areaRng = _AREA_RANGES
    scorer.evaluate()
    scorer.accumulate()
    # T IoUs, R recalls, one category, A areas, M numbers of masks: (T, 1, A, M) and (T, R, 1, A, M); -1: no object.
    recall, precision = scorer.eval["recall"][:, 0], scorer.eval["precision"][:, :, 0, 0, -1]
    ap_50, ap_75 = (float(precision[np.isclose(scorer.params.iouThrs, iou)].mean()) for iou in (0.5, 0.75))
    by_size = zip(SIZE_CLASSES, recall[:, 1:, -1].mean(axis=0).tolist(), strict=True)
    return CocoFigures(
        ar_100=float(recall[:, 0, 0].mean()),
        ar_1000=float(recall[:, 0, 1].mean()),
        ap=float(precision.mean()),
        ap_50=ap_50,
        ap_75=ap_75,
        ar_1000_by_size={size: value for size, value in by_size if value >= 0},
    )
