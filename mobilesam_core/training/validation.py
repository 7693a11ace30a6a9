"""What is measured between epochs, with the same prompts every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mobilesam_core.data.sample import SampleSource
from mobilesam_core.data.subset import Subset, spread
from mobilesam_core.evaluation.calibration import Calibration, calibrate
from mobilesam_core.evaluation.scoring import EvalOptions, Evaluation, Observation, evaluate
from mobilesam_core.evaluation.types import PromptKind
from mobilesam_core.evaluation.worst import WorstCases
from mobilesam_core.interrupt import StopRequest
from mobilesam_core.ops.drawing import (
    distinct_color,
    fill_mask,
    line_width,
    new_canvas,
    outline_mask,
    write_png,
)
from mobilesam_core.ops.masks import mask_coverage, place_masks, resize_masks
from mobilesam_core.ops.tiles import Tiling
from mobilesam_core.training.details import write_details
from mobilesam_core.training.run import Run


@dataclass(frozen=True)
class Validation:
    """Means over all objects. ``score`` is what ``best`` compares, higher is better."""

    values: dict[str, float]
    score: float

    @property
    def sentence(self) -> str:
        """For the log."""
        v = self.values
        text = (
            f"val loss {v['loss']:.4f}, mIoU box {v['box_miou']:.3f} (fill the box {v['fill_box_miou']:.3f}), "
            f"one point {v['point_miou']:.3f}, Dice {v['box_dice']:.3f} / {v['point_dice']:.3f}"
        )
        if "box_agreement" in v:
            text += f", agreement with the teacher {v['box_agreement']:.3f} / {v['point_agreement']:.3f}"
        return text


def validate(run: Run, source: SampleSource, epoch: int, stop: StopRequest) -> Validation | None:
    """Evaluate boxes and one centre point on ``source``; loss, mIoU, Dice and how far the predicted IoU is off, a few
    overlays, and pictures of the worst objects. None where a ``stop`` was requested.

    ``epoch`` names the folders of the pictures. Of several processes each evaluates its own images.
    """
    options, processes = run.config.train.validation, run.processes
    chosen = spread(len(source), options.max_images)
    watcher = _Watcher(run, stop, len(range(processes.rank, options.overlays, processes.count)))
    model = run.result  # not in mixed precision: adapters are merged here
    mine: tuple[Evaluation, _Seen] | None = None
    with suppress(_Stopped), run.fabric.autocast():
        evaluation = evaluate(
            model,
            Subset(source, chosen[processes.rank :: processes.count]),
            EvalOptions(
                prompts=("box", "point"),
                boundary=False,
                max_objects=options.max_objects,
                tiling=Tiling.of(run.config.data),
            ),
            run.reporter,
            watcher.see,
            stored=run.sets.stored,
            teacher=run.teachers[0].model if run.teachers and options.agreement else None,
        )
        mine = evaluation, watcher.seen
    parts = [part for part in processes.gather(mine) if part is not None]
    if len(parts) < processes.count:
        return None
    for part, _ in parts[1:]:
        for failure in part.failures:  # of the first process, the evaluation told
            run.reporter.warning(failure.problem)
    evaluation, seen = Evaluation.joined([part for part, _ in parts]), _Seen.joined([seen for _, seen in parts])
    box, point = evaluation.summary("box"), evaluation.summary("point")
    calibration = {kind: _calibration(evaluation, kind) for kind in evaluation.options.prompts}
    if processes.first:
        _write_overlays(run.folder.overlays(epoch), list(seen.panels.values())[: options.overlays])
        write_details(run.folder.validation(epoch), calibration, seen.worst)
    values = {
        "loss": seen.mean_loss,
        "miou": (box.miou + point.miou) / 2,
        "box_miou": box.miou,
        "point_miou": point.miou,
        "box_dice": box.dice,
        "point_dice": point.dice,
        "fill_box_miou": box.fill_box_iou,
        "objects": float(box.objects),
    }
    for kind, each in calibration.items():
        values |= {f"{kind}_ece": each.ece, f"{kind}_bias": each.bias}
    if box.agreement is not None and point.agreement is not None:
        values |= {"box_agreement": box.agreement, "point_agreement": point.agreement}
    return Validation(values, score(options.metric, values))


def _calibration(evaluation: Evaluation, kind: PromptKind) -> Calibration:
    scores = [score for score in evaluation.scores if score.kind == kind]
    return calibrate([score.predicted_iou for score in scores], [score.iou for score in scores])


def score(metric: str, values: Mapping[str, float]) -> float:
    """What ``best`` compares, higher is better; ``metric`` as ``train.validation.metric`` names it."""
    return -values["loss"] if metric == "loss" else values[metric]


def harm_warning(metric: str, before: float, best: float) -> str | None:
    """What to say of scores before training and at best; None where training helped."""
    if best > before:
        return None
    return (
        f"No epoch was better than the start weights ({metric} {abs(best):.3f} at best, {abs(before):.3f} before): "
        "lower optim.lr, train longer, or keep the weights you had."
    )


@dataclass
class _Panels:
    """Three copies of an image, for the truth and for what boxes and points gave."""

    truth: np.ndarray
    box: np.ndarray
    point: np.ndarray


@dataclass
class _Seen:
    """What an evaluation showed besides scores: the loss and the number of objects of each chunk, drawings of the first
    images by their key, and the worst objects."""

    worst: WorstCases
    losses: list[tuple[float, int]] = field(default_factory=list)
    panels: dict[str, _Panels] = field(default_factory=dict)

    @property
    def mean_loss(self) -> float:
        """Mean of the training loss over objects and both kinds of prompt."""
        return sum(loss * count for loss, count in self.losses) / sum(count for _, count in self.losses)

    @staticmethod
    def joined(parts: Sequence[_Seen]) -> _Seen:
        """Of processes that take turns at the images."""
        whole = parts[0]
        for part in parts[1:]:
            whole.worst.take(part.worst)
            whole.losses.extend(part.losses)
        turns = zip_longest(*(part.panels.items() for part in parts))
        whole.panels = dict(panels for turn in turns for panels in turn if panels is not None)
        return whole


class _Stopped(Exception):
    """A stop was requested while this process evaluated."""


class _Watcher:
    """Looks at every chunk of objects as it is evaluated.

    images: how many to draw.
    """

    def __init__(self, run: Run, stop: StopRequest, images: int) -> None:
        self._run, self._stop, self._images = run, stop, images
        self.seen = _Seen(WorstCases(run.config.train.validation.overlays))

    def see(self, seen: Observation) -> None:
        if self._stop.requested:
            raise _Stopped
        size = self._run.config.loss.loss_size or self._run.model.image_size // 4
        framed = resize_masks(seen.targets, seen.frame.scaled)
        logits: Tensor = seen.low_res_logits
        targets, predicted = (
            torch.from_numpy(each).to(logits.device)
            for each in (mask_coverage(framed, seen.frame.size, size), seen.iou_predictions)
        )
        values = self._run.step.loss(logits, predicted, targets)
        self.seen.losses.append((values.total.item(), len(seen.targets)))
        self._draw(seen)
        self.seen.worst(seen)

    def _draw(self, seen: Observation) -> None:
        key = seen.sample.key
        if key not in self.seen.panels:
            if len(self.seen.panels) >= self._images:
                return
            self.seen.panels[key] = _Panels(*(new_canvas(seen.sample.image) for _ in range(3)))
        panels = self.seen.panels[key]
        drawings = [(panels.box if seen.kind == "box" else panels.point, seen.masks)]
        if seen.kind == "box":
            drawings.append((panels.truth, seen.targets))
        for canvas, masks in drawings:
            for number, shown in zip(seen.object_indices, masks, strict=True):
                mask = place_masks(shown, seen.window, seen.sample.masks.shape)
                fill_mask(canvas, mask, distinct_color(number))
                outline_mask(canvas, mask, distinct_color(number), line_width(canvas))


def _write_overlays(folder: Path, pictures: Sequence[_Panels]) -> None:
    """One picture an image: truth, masks from boxes, masks from points, side by side."""
    for number, panels in enumerate(pictures):
        gap = np.full((panels.truth.shape[0], 4, 3), 255, np.uint8)
        picture = np.concatenate([panels.truth, gap, panels.box, gap, panels.point], axis=1)
        write_png(folder / f"{number:02d}_truth_box_point.png", picture)
