"""The next point of a prompt, where its mask is wrong (Kirillov et al., "Segment Anything", 2023, appendix A)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mobilesam_core.models.mask_decoder import DecoderOutput
from mobilesam_core.prompts.correction import next_click
from mobilesam_core.prompts.tensors import PromptTensors, add_clicks
from mobilesam_core.prompts.types import ABSENT, NEGATIVE, PAD, POSITIVE

ClickMode = Literal["uniform", "center"]


def corrected(
    prompts: PromptTensors,
    masks: Tensor,
    wanted: Tensor,
    sizes: Tensor,
    image_size: int,
    mode: ClickMode = "center",
) -> PromptTensors:
    """``prompts``, each with a click where ``masks`` is not what is ``wanted``, if there is such a place in the image.

    Args:
        masks, wanted: ``(N, h, w)`` bool, over the whole frame of ``image_size`` pixels.
        sizes: ``(N, 2)`` int64, the ``(h, w)`` of the frame that is image.
        mode: ``uniform``, anywhere; ``center``, in the middle of the largest region, which a CPU looks for.
    """
    inside = cells_inside(sizes, masks.shape[-1], image_size)
    scale = image_size / masks.shape[-1]
    if mode == "center":
        found, sought = torch.stack([masks & inside, wanted & inside]).cpu().numpy()
        return add_clicks(prompts, [next_click(*pair) for pair in zip(sought, found, strict=True)], scale)
    wrong = ((masks != wanted) & inside).flatten(1)
    # The greatest of independent random numbers is at any of the places alike; without a place it means nothing.
    place = (torch.rand(wrong.shape, device=wrong.device) * wrong).argmax(dim=1, keepdim=True)
    xy = torch.cat([place % masks.shape[-1], place // masks.shape[-1]], dim=1)
    labels = torch.where(wanted.flatten(1).gather(1, place), POSITIVE, NEGATIVE)
    labels = torch.where(wrong.gather(1, place), labels, ABSENT)
    return PromptTensors(
        torch.cat([prompts.points, ((xy + 0.5) * scale - 0.5)[:, None]], dim=1),
        torch.cat([prompts.labels, labels], dim=1),
        prompts.masks,
        prompts.has_mask,
    )


def cells_inside(sizes: Tensor, grid: int, image_size: int) -> Tensor:
    """``(B, grid, grid)`` bool: the cells of a frame of ``image_size`` pixels in which all is image.

    sizes: ``(B, 2)`` int64, the ``(h, w)`` of it that is image.
    """
    ends = torch.arange(1, grid + 1, device=sizes.device) * (image_size / grid)
    rows, columns = (ends <= side[:, None] for side in sizes.unbind(1))
    return rows[:, :, None] & columns[:, None, :]


def answers(decoded: DecoderOutput, labels: Tensor) -> Tensor:
    """The logits ``(N, h, w)`` that a user gets for prompts of ``labels`` ``(N, T)``.

    As :func:`~mobilesam_core.prediction.answers.select_masks` has it: of a single point, the best-scored of the
    multimask outputs; of any other prompt, the single mask.
    """
    ambiguous = ((labels != ABSENT) & (labels != PAD)).sum(dim=1) == 1
    best = torch.where(ambiguous, 1 + decoded.iou_predictions[:, 1:].argmax(dim=1), 0)
    return decoded.low_res_logits[torch.arange(len(best), device=best.device), best]


def on_grid(targets: Tensor, side: int) -> Tensor:
    """Which cells of a ``side`` x ``side`` grid an object covers for the most part, by its shares of other cells.

    targets: ``(N, L, L)`` in [0, 1]; returns ``(N, side, side)`` bool.
    """
    if targets.shape[-1] != side:
        targets = F.interpolate(targets[:, None], (side, side), mode="bilinear", antialias=True)[:, 0]
    return targets >= 0.5
