"""What evaluation is asked, and what it says about each object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mobilesam_core.data.sample import Sample
from mobilesam_core.errors import UsageError
from mobilesam_core.ops.frame import Frame
from mobilesam_core.ops.masks import Window
from mobilesam_core.ops.tiles import Tiling
from mobilesam_core.prompts.types import Prompt
from mobilesam_core.runtime.protocol import Array

PromptKind = Literal["box", "point", "clicks"]
PROMPT_KINDS: tuple[PromptKind, ...] = ("box", "point", "clicks")

SizeClass = Literal["small", "medium", "large"]
SIZE_CLASSES: tuple[SizeClass, ...] = ("small", "medium", "large")


MEDIUM_FROM, LARGE_FROM = 32**2, 96**2
"""Pixels of the smallest object that is no longer small, and no longer medium."""


def size_class(area: int) -> SizeClass:
    """COCO's size classes, by the object's pixels in the original image: below 32², below 96², and above."""
    if area < MEDIUM_FROM:
        return "small"
    return "medium" if area < LARGE_FROM else "large"


@dataclass(frozen=True)
class EvalOptions:
    """How to evaluate.

    prompts: ``box`` is the object's exact box, ``point`` its centre (the maximum of the distance transform),
    ``clicks`` that many corrective clicks one after the other, each with the previous logits as mask prompt.
    mask_threshold: logits above it are the mask.
    boundary: measure the boundary IoU too (it takes time).
    max_images, max_objects: at most so many images, and objects an image, evenly spread; None for all.
    object_chunk: objects decoded at a time; None fits it to the size of image and model.
    tiling: an object is asked about in the tile that holds it whole (of several the one whose centre is nearest), one
    that no tile holds in the whole image; None: all are in the whole image.
    """

    prompts: tuple[PromptKind, ...] = ("box", "point")
    clicks: int = 5
    mask_threshold: float = 0.0
    boundary: bool = True
    max_images: int | None = None
    max_objects: int | None = None
    object_chunk: int | None = None
    tiling: Tiling | None = None

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.prompts if kind not in PROMPT_KINDS]
        if unknown or not self.prompts or len(set(self.prompts)) < len(self.prompts):
            raise UsageError(
                f"The prompts '{','.join(self.prompts)}' cannot be evaluated.",
                f"Name each of {', '.join(PROMPT_KINDS)} at most once, separated by commas.",
            )
        for name in ("clicks", "max_images", "max_objects", "object_chunk"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}.")


@dataclass(frozen=True)
class ObjectScore:
    """How well one object was segmented from one kind of prompt.

    image: key of its image. object: its index there. label: its id or category. area: pixels in the original
    image. predicted_iou: the model's own estimate, raw. iou, dice, boundary_iou: of the mask a user would get
    (for a single point the best-scored of the three multimask outputs, else the single-mask output).
    boundary_iou is None where it was not measured. iou_oracle: the best of the three multimask outputs.
    fill_box_iou, fill_box_boundary_iou: of the trivial answer, all of the object's box. click_ious: after
    each click; empty for the other kinds. agreement: IoU with the mask that a teacher gives for the same prompt;
    None without a teacher.
    """

    image: str
    object: int
    label: int
    area: int
    size: SizeClass
    kind: PromptKind
    predicted_iou: float
    iou: float
    iou_oracle: float
    dice: float
    boundary_iou: float | None
    fill_box_iou: float
    fill_box_boundary_iou: float | None
    click_ious: tuple[float, ...] = ()
    agreement: float | None = None


@dataclass(frozen=True)
class Observation:
    """What the model said about n objects of one image, for an onlooker (validation loss, overlays).

    window: the part of the image that the model saw; all that follows is in its pixels. frame: how it lies in the
    model's input. object_indices: n
    indices into ``sample.masks``. prompts: n prompts; of ``clicks``, all clicks.
    low_res_logits: ``(n, 4, h, w)``, as the runtime has them, and iou_predictions ``(n, 4)``; output 0 is the
    single-mask one.
    targets, masks: ``(n, H, W)`` bool, the truth and the selected masks at the window's size. scores: n.
    """

    sample: Sample
    window: Window
    frame: Frame
    kind: PromptKind
    object_indices: Sequence[int]
    prompts: Sequence[Prompt]
    low_res_logits: Array
    iou_predictions: np.ndarray
    targets: np.ndarray
    masks: np.ndarray
    scores: Sequence[ObjectScore]

    @property
    def pixels(self) -> np.ndarray:
        """The part of the image, as ``sample.image`` has it."""
        left, top, right, bottom = self.window
        return self.sample.image[top:bottom, left:right]
