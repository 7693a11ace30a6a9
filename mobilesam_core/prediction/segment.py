"""From an image and the objects asked for to masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mobilesam_core.ops.frame import Frame
from mobilesam_core.prediction.answers import select_masks
from mobilesam_core.prediction.mask_prompt import read_mask_prompt
from mobilesam_core.prediction.requests import ObjectRequest
from mobilesam_core.prompts.types import Prompt
from mobilesam_core.runtime.protocol import Decoded, EncodedImage, Runtime, objects_at_once

Output = Literal["best", "multimask", "single"]
"""``best``: as SAM answers, for a single point the best-scored of three masks, else the single-mask output.
``multimask``: all three. ``single``: always the single-mask output."""


@dataclass(frozen=True)
class MaskPrediction:
    """One mask of one object.

    object: its index. candidate: 0 to 2 with ``multimask``, else None. mask: ``(H, W)`` bool at the image's
    size. predicted_iou: the model's own estimate, raw. best: whether it is the best-scored of its object's
    masks here.
    """

    object: int
    candidate: int | None
    mask: np.ndarray
    predicted_iou: float
    best: bool


def segment(
    runtime: Runtime,
    image: np.ndarray,
    objects: Sequence[ObjectRequest],
    output: Output = "best",
    orientation: int = 1,
    encoded: EncodedImage | None = None,
) -> Iterator[MaskPrediction]:
    """Segment objects in a ``(H, W, 3)`` RGB uint8 image, in their order, a few at a time to bound memory.

    orientation: the EXIF orientation that was undone, for mask prompts that were saved before it was. encoded: the
    image's encoding, where it is known already.

    Raises:
        PromptError: a mask prompt cannot be used; nothing was segmented.
    """
    frame = Frame.of(image.shape[0], image.shape[1], runtime.image_size)
    prompts = [_prompt(wanted, frame, orientation) for wanted in objects]
    if encoded is None:
        with runtime.running():
            encoded = runtime.encode(image)
    size = objects_at_once(runtime, frame)
    for start in range(0, len(objects), size):
        part = prompts[start : start + size]
        with runtime.running():
            decoded = runtime.decode(encoded, part)
            outputs = _outputs(decoded, part, output)
            rows = np.arange(len(part))[:, None]
            found = runtime.masks(decoded.low_res_logits[rows, outputs], frame, runtime.mask_threshold)
        scores = decoded.iou_predictions[rows, outputs].tolist()
        for number, (candidates, ious) in enumerate(zip(found, scores, strict=True), start):
            for k, (mask, iou) in enumerate(zip(candidates, ious, strict=True)):
                candidate = k if output == "multimask" else None
                yield MaskPrediction(number, candidate, mask, iou, k == int(np.argmax(ious)))


def _prompt(wanted: ObjectRequest, frame: Frame, orientation: int) -> Prompt:
    return wanted.prompt(None if wanted.mask is None else read_mask_prompt(wanted.mask, frame, orientation))


def _outputs(decoded: Decoded, prompts: Sequence[Prompt], output: Output) -> np.ndarray:
    """``(n, K)`` int64: which of the four outputs to return for each prompt."""
    if output == "best":
        return select_masks(decoded.iou_predictions, prompts)[:, None]
    kept = [1, 2, 3] if output == "multimask" else [0]
    return np.tile(np.array(kept), (len(prompts), 1))
