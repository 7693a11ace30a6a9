"""Asking about known objects: by their box, by their centre, or by clicks that correct mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobilesam_core.evaluation.types import EvalOptions, PromptKind
from mobilesam_core.ops.masks import InstanceMasks, Window
from mobilesam_core.ops.metrics import mask_iou
from mobilesam_core.prediction.answers import select_masks
from mobilesam_core.prompts.correction import Click, next_click
from mobilesam_core.prompts.sampling import center_point
from mobilesam_core.prompts.types import Prompt
from mobilesam_core.runtime.protocol import Array, EncodedImage, Runtime


@dataclass(frozen=True)
class Objects:
    """n objects of one image, none empty, which lie whole in a window of it.

    indices: into the image's masks. boxes: ``(n, 4)`` float32 XYXY in pixels of the window. targets: their
    ``(n, H, W)`` bool masks, of its size.
    """

    indices: Sequence[int]
    boxes: np.ndarray
    targets: np.ndarray

    @staticmethod
    def of(masks: InstanceMasks, indices: Sequence[int], window: Window) -> Objects:
        """The objects ``indices`` of ``masks``, in ``window``."""
        corner = np.array(window[:2] * 2, np.float32)
        return Objects(indices, masks.boxes[indices] - corner, masks.dense(indices, window))


@dataclass(frozen=True)
class Answers:
    """What the model said about n objects.

    prompts: in pixels of what was encoded. low_res_logits: ``(n, 4, h, w)`` float32, as the runtime has them.
    iou_predictions: ``(n, 4)`` float32.
    selected: ``(n,)`` int64, the output a user would get. click_ious: n times the IoU after each
    click, or empty.
    """

    prompts: Sequence[Prompt]
    low_res_logits: Array
    iou_predictions: np.ndarray
    selected: np.ndarray
    click_ious: Sequence[tuple[float, ...]] = ()


def ask(runtime: Runtime, image: EncodedImage, kind: PromptKind, objects: Objects, options: EvalOptions) -> Answers:
    """Prompt for objects of one image in the way of ``kind`` (see :class:`EvalOptions`)."""
    if kind == "clicks":
        return _click(runtime, image, objects, options)
    if kind == "box":
        prompts = [Prompt.from_box(box) for box in objects.boxes]
    else:
        prompts = [Prompt.from_points([center_point(target)]) for target in objects.targets]
    return answer(runtime, image, prompts)


def answer(runtime: Runtime, image: EncodedImage, prompts: Sequence[Prompt], previous: Array | None = None) -> Answers:
    """What the model says of prompts in pixels of the image; ``previous`` as :meth:`Runtime.decode` takes it."""
    output = runtime.decode(image, prompts, previous)
    selected = select_masks(output.iou_predictions, prompts)
    return Answers(prompts, output.low_res_logits, output.iou_predictions, selected)


def _click(runtime: Runtime, image: EncodedImage, objects: Objects, options: EvalOptions) -> Answers:
    """Click into the middle of each object, then into the largest mistake of each answer.

    An object answered without any mistake gets no more clicks and keeps its IoU of 1.
    """
    clicks = [[click] for click in map(next_click, objects.targets) if click is not None]
    answers = answer(runtime, image, [_prompt(c) for c in clicks])
    logits, scores, selected = answers.low_res_logits, answers.iou_predictions, answers.selected
    rows = np.arange(len(clicks))

    def masks_of(at: np.ndarray) -> np.ndarray:
        chosen = logits[at, selected[at]][:, None]
        return runtime.masks(chosen, image.frame, options.mask_threshold)[:, 0]

    masks = masks_of(rows)
    ious = [mask_iou(masks, objects.targets)]
    for _ in range(1, options.clicks):
        wrong = []
        for i, (target, mask) in enumerate(zip(objects.targets, masks, strict=True)):
            if (click := next_click(target, mask)) is not None:
                clicks[i].append(click)
                wrong.append(i)
        if wrong:
            at = rows[wrong]
            answers = answer(runtime, image, [_prompt(clicks[i]) for i in wrong], logits[at, selected[at]])
            logits[at], scores[at] = answers.low_res_logits, answers.iou_predictions
            selected[at] = answers.selected
            masks[at] = masks_of(at)
        ious.append(mask_iou(masks, objects.targets))
    curves = [tuple(curve) for curve in np.stack(ious, axis=1).tolist()]
    return Answers([_prompt(c) for c in clicks], logits, scores, selected, curves)


def _prompt(clicks: Sequence[Click]) -> Prompt:
    return Prompt.from_points([click.point for click in clicks], [click.label for click in clicks])
