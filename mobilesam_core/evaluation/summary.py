"""From scores of objects to the figures of a table."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mobilesam_core.data.sample import BadFile
from mobilesam_core.errors import DataError
from mobilesam_core.evaluation.types import SIZE_CLASSES, EvalOptions, ObjectScore, PromptKind, SizeClass
from mobilesam_core.files import atomic_path
from mobilesam_core.ops.metrics import dice_from_iou

NOC_TARGETS = (0.85, 0.90)
"""IoUs whose number of clicks is counted (NoC@85, NoC@90)."""

_DIGITS = 6


@dataclass(frozen=True)
class Means:
    """Means over ``objects`` objects, each in [0, 1]; ``fill_box_*`` are those of the trivial answer.

    The boundary figures are None where they were not measured. agreement: mean IoU with the masks of a teacher; None
    without one.
    """

    objects: int
    miou: float
    miou_oracle: float
    dice: float
    boundary_iou: float | None
    predicted_iou: float
    fill_box_iou: float
    fill_box_dice: float
    fill_box_boundary_iou: float | None
    agreement: float | None


@dataclass(frozen=True)
class ClickFigures:
    """What clicks achieve, means over objects.

    iou_after: IoU after each click. noc: for each IoU of :data:`NOC_TARGETS`, in percent, the number of clicks
    to reach it; an object that never does counts as all clicks. reached: the share that does.
    """

    iou_after: tuple[float, ...]
    noc: dict[int, float]
    reached: dict[int, float]


@dataclass(frozen=True)
class Summary(Means):
    """The means of one kind of prompt over all objects, and over those of each size class that occurs."""

    kind: PromptKind
    by_size: dict[SizeClass, Means]
    clicks: ClickFigures | None


@dataclass(frozen=True)
class Evaluation:
    """All that one evaluation found.

    scores: by kind of prompt, then image, then object. images: how many were evaluated.
    failures: images and objects that could not be; they are in no figure.
    """

    options: EvalOptions
    images: int
    scores: tuple[ObjectScore, ...]
    failures: tuple[BadFile, ...]

    @staticmethod
    def joined(parts: Sequence[Evaluation]) -> Evaluation:
        """Of all images of ``parts``, which share no image, with the options of the first."""
        options = parts[0].options
        scores = [score for kind in options.prompts for part in parts for score in part.scores if score.kind == kind]
        failures = tuple(failure for part in parts for failure in part.failures)
        return Evaluation(options, sum(part.images for part in parts), tuple(scores), failures)

    def summary(self, kind: PromptKind) -> Summary:
        """The figures of ``kind``.

        Raises:
            DataError: there was no object to evaluate.
        """
        scores = [score for score in self.scores if score.kind == kind]
        if not scores:
            raise nothing_to_evaluate(self.failures)
        by_size = {size: [s for s in scores if s.size == size] for size in SIZE_CLASSES}
        return Summary(
            **asdict(_means(scores)),
            kind=kind,
            by_size={size: _means(members) for size, members in by_size.items() if members},
            clicks=_click_figures(scores) if kind == "clicks" else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON; equal evaluations give equal documents.

        Raises:
            DataError: there was no object to evaluate.
        """
        document = {
            "options": asdict(self.options),
            "images": self.images,
            "failures": [asdict(failure) for failure in self.failures],
            "prompts": {kind: asdict(self.summary(kind)) for kind in self.options.prompts},
        }
        return plain_json(document)

    def write_csv(self, path: Path) -> None:
        """Write one row an object and kind of prompt.

        Raises:
            OutputError: the file cannot be written.
        """
        clicks = self.options.clicks if "clicks" in self.options.prompts else 0
        columns = [field.name for field in fields(ObjectScore) if field.name != "click_ious"]
        with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*columns, *(f"iou_click_{n}" for n in range(1, clicks + 1))])
            for score in self.scores:
                values = [*(getattr(score, column) for column in columns), *score.click_ious]
                writer.writerow([_plain(value) for value in values] + [""] * (clicks - len(score.click_ious)))


def nothing_to_evaluate(failures: Sequence[BadFile]) -> DataError:
    """The error to raise when no object is left."""
    problems = "".join(f"\n  {failure.problem}" for failure in failures)
    return DataError(f"There is no object to evaluate.{problems}", "Check the data and their format.")


def plain_json(document: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, keys as texts, and floats to :data:`_DIGITS` digits, so that JSON reads back to the same."""
    plain: dict[str, Any] = _plain(document)
    return plain


def _means(scores: Sequence[ObjectScore]) -> Means:
    boundaries = [s.boundary_iou for s in scores if s.boundary_iou is not None]
    agreements = [s.agreement for s in scores if s.agreement is not None]
    box_boundaries = [s.fill_box_boundary_iou for s in scores if s.fill_box_boundary_iou is not None]
    return Means(
        objects=len(scores),
        miou=_mean([s.iou for s in scores]),
        miou_oracle=_mean([s.iou_oracle for s in scores]),
        dice=_mean([s.dice for s in scores]),
        boundary_iou=_mean(boundaries) if boundaries else None,
        predicted_iou=_mean([s.predicted_iou for s in scores]),
        fill_box_iou=_mean([s.fill_box_iou for s in scores]),
        fill_box_dice=_mean([dice_from_iou(s.fill_box_iou) for s in scores]),
        fill_box_boundary_iou=_mean(box_boundaries) if box_boundaries else None,
        agreement=_mean(agreements) if agreements else None,
    )


def _mean(values: Sequence[float]) -> float:
    # fsum: the same figure whatever the order of the objects.
    return math.fsum(values) / len(values)


def _click_figures(scores: Sequence[ObjectScore]) -> ClickFigures:
    curves = [score.click_ious for score in scores]
    clicks = len(curves[0])
    noc, reached = {}, {}
    for target in NOC_TARGETS:
        needed = [next((n for n, iou in enumerate(curve, 1) if iou >= target), None) for curve in curves]
        noc[round(100 * target)] = _mean([clicks if n is None else n for n in needed])
        reached[round(100 * target)] = _mean([n is not None for n in needed])
    return ClickFigures(tuple(_mean(ious) for ious in zip(*curves, strict=True)), noc, reached)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return round(value, _DIGITS) if isinstance(value, float) else value
