"""What is measured between epochs, with the same prompts every time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mobilesam_core.data.sample import SampleSource
from mobilesam_core.evaluation.calibration import Calibration, calibrate
from mobilesam_core.evaluation.scoring import EvalOptions, Evaluation, Observation, evaluate
from mobilesam_core.evaluation.types import PromptKind
from mobilesam_core.evaluation.worst import WorstCases
from mobilesam_core.ops.drawing import (
    distinct_color,
    fill_mask,
    line_width,
    new_canvas,
    outline_mask,
    write_png,
)
from mobilesam_core.ops.masks import mask_coverage, resize_masks
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


def validate(run: Run, source: SampleSource, epoch: int, check_stop: Callable[[], None]) -> Validation:
    """Evaluate boxes and one centre point on ``source``; loss, mIoU, Dice and how far the predicted IoU is off, a few
    overlays, and pictures of the worst objects.

    ``epoch`` names the folders of the pictures; ``check_stop`` is called between images and may raise.
    """
    options = run.config.train.validation
    watcher = _Watcher(run, check_stop)
    model = run.result  # not in mixed precision: adapters are merged here
    with run.fabric.autocast():
        evaluation = evaluate(
            model,
            source,
            EvalOptions(
                prompts=("box", "point"),
                boundary=False,
                max_images=options.max_images,
                max_objects=options.max_objects,
            ),
            run.reporter,
            watcher.see,
            stored=run.sets.stored,
            teacher=run.teachers[0].model if run.teachers and options.agreement else None,
        )
    box, point = evaluation.summary("box"), evaluation.summary("point")
    calibration = {kind: _calibration(evaluation, kind) for kind in evaluation.options.prompts}
    watcher.write_overlays(epoch)
    write_details(run.folder.validation(epoch), calibration, watcher.worst)
    values = {
        "loss": watcher.mean_loss,
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
class _Watcher:
    """Looks at every chunk of objects as it is evaluated: sums the loss, draws the first images, and keeps the worst
    objects."""

    run: Run
    check_stop: Callable[[], None]
    losses: list[tuple[float, int]] = field(default_factory=list)
    panels: dict[str, _Panels] = field(default_factory=dict)
    worst: WorstCases = field(init=False)

    def __post_init__(self) -> None:
        self.worst = WorstCases(self.run.config.train.validation.overlays)

    @property
    def mean_loss(self) -> float:
        """Mean of the training loss over objects and both kinds of prompt."""
        return sum(loss * count for loss, count in self.losses) / sum(count for _, count in self.losses)

    def see(self, seen: Observation) -> None:
        self.check_stop()
        size = self.run.config.loss.loss_size or self.run.model.image_size // 4
        framed = resize_masks(seen.targets, seen.frame.scaled)
        logits: Tensor = seen.low_res_logits
        targets, predicted = (
            torch.from_numpy(each).to(logits.device)
            for each in (mask_coverage(framed, seen.frame.size, size), seen.iou_predictions)
        )
        values = self.run.step.loss(logits, predicted, targets)
        self.losses.append((values.total.item(), len(seen.targets)))
        self._draw(seen)
        self.worst(seen)

    def _draw(self, seen: Observation) -> None:
        key = seen.sample.key
        if key not in self.panels:
            if len(self.panels) >= self.run.config.train.validation.overlays:
                return
            self.panels[key] = _Panels(*(new_canvas(seen.sample.image) for _ in range(3)))
        panels = self.panels[key]
        drawings = [(panels.box if seen.kind == "box" else panels.point, seen.masks)]
        if seen.kind == "box":
            drawings.append((panels.truth, seen.targets))
        for canvas, masks in drawings:
            for number, mask in zip(seen.object_indices, masks, strict=True):
                fill_mask(canvas, mask, distinct_color(number))
                outline_mask(canvas, mask, distinct_color(number), line_width(canvas))

    def write_overlays(self, epoch: int) -> None:
        """One picture an image: truth, masks from boxes, masks from points, side by side."""
        folder = self.run.folder.overlays(epoch)
        for number, panels in enumerate(self.panels.values()):
            gap = np.full((panels.truth.shape[0], 4, 3), 255, np.uint8)
            picture = np.concatenate([panels.truth, gap, panels.box, gap, panels.point], axis=1)
            write_png(folder / f"{number:02d}_truth_box_point.png", picture)
