"""Asking about known objects: by their box, by their centre, or by clicks that correct mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mobilesam_core.evaluation.types import EvalOptions, PromptKind
from mobilesam_core.models.sam import Sam
from mobilesam_core.ops.masks import InstanceMasks
from mobilesam_core.ops.metrics import mask_iou
from mobilesam_core.prediction.encoded import EncodedImage, decode_prompts, native_masks, select_masks
from mobilesam_core.prompts.correction import Click, next_click
from mobilesam_core.prompts.sampling import center_point
from mobilesam_core.prompts.types import Prompt


@dataclass(frozen=True)
class Objects:
    """n objects of one image, none empty.

    indices: into the image's masks. boxes: ``(n, 4)`` float32 XYXY in its pixels. wanted, targets: their
    ``(n, H, W)`` bool masks, on the host and on the model's device.
    """

    indices: Sequence[int]
    boxes: np.ndarray
    wanted: np.ndarray
    targets: Tensor

    @staticmethod
    def of(masks: InstanceMasks, indices: Sequence[int], device: torch.device) -> Objects:
        """The objects ``indices`` of ``masks``."""
        wanted = masks.dense(indices)
        return Objects(indices, masks.boxes[indices], wanted, torch.from_numpy(wanted).to(device))


@dataclass(frozen=True)
class Answers:
    """What the model said about n objects.

    prompts: in pixels of the image. low_res_logits: ``(n, 4, h, w)`` float32. iou_predictions: ``(n, 4)``
    float32. selected: ``(n,)`` int64, the output a user would get. click_ious: n times the IoU after each
    click, or empty.
    """

    prompts: Sequence[Prompt]
    low_res_logits: Tensor
    iou_predictions: Tensor
    selected: Tensor
    click_ious: Sequence[tuple[float, ...]] = ()


def ask(model: Sam, image: EncodedImage, kind: PromptKind, objects: Objects, options: EvalOptions) -> Answers:
    """Prompt for objects of one image in the way of ``kind`` (see :class:`EvalOptions`)."""
    if kind == "clicks":
        return _click(model, image, objects, options)
    if kind == "box":
        prompts = [Prompt.from_box(box) for box in objects.boxes]
    else:
        prompts = [Prompt.from_points([center_point(target)]) for target in objects.wanted]
    return _decode(model, image, prompts)


def _decode(
    model: Sam, image: EncodedImage, prompts: Sequence[Prompt], previous_logits: Tensor | None = None
) -> Answers:
    output = decode_prompts(model, image, prompts, previous_logits)
    # float32 even under autocast, so that answers of later clicks can be written into those of earlier ones.
    logits, scores = output.low_res_logits.float(), output.iou_predictions.float()
    return Answers(prompts, logits, scores, select_masks(output, prompts))


def _click(model: Sam, image: EncodedImage, objects: Objects, options: EvalOptions) -> Answers:
    """Click into the middle of each object, then into the largest mistake of each answer.

    An object answered without any mistake gets no more clicks and keeps its IoU of 1.
    """
    clicks = [[click] for click in map(next_click, objects.wanted) if click is not None]
    answers = _decode(model, image, [_prompt(c) for c in clicks])
    logits, scores, selected = answers.low_res_logits, answers.iou_predictions, answers.selected
    rows = torch.arange(len(clicks), device=logits.device)

    def masks_of(at: Tensor) -> Tensor:
        chosen = logits[at, selected[at]][:, None]
        return native_masks(chosen, image.frame, options.mask_threshold)[:, 0]

    masks = masks_of(rows)
    ious = [mask_iou(masks, objects.targets)]
    for _ in range(1, options.clicks):
        wrong = []
        for i, (target, mask) in enumerate(zip(objects.wanted, masks.cpu().numpy(), strict=True)):
            if (click := next_click(target, mask)) is not None:
                clicks[i].append(click)
                wrong.append(i)
        if wrong:
            at = rows[wrong]
            answers = _decode(model, image, [_prompt(clicks[i]) for i in wrong], logits[at, selected[at]])
            logits[at], scores[at] = answers.low_res_logits, answers.iou_predictions
            selected[at] = answers.selected
            masks[at] = masks_of(at)
        ious.append(mask_iou(masks, objects.targets))
    curves = [tuple(curve) for curve in torch.stack(ious, dim=1).tolist()]
    return Answers([_prompt(c) for c in clicks], logits, scores, selected, curves)


def _prompt(clicks: Sequence[Click]) -> Prompt:
    return Prompt.from_points([click.point for click in clicks], [click.label for click in clicks])
