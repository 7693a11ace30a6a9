"""The next point of a prompt, where its mask is wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from mobilesam_core.prompts.correction import next_click
from mobilesam_core.prompts.tensors import PromptTensors, add_clicks


@torch.no_grad()
def corrected(prompts: PromptTensors, masks: Tensor, wanted: Tensor, sizes: Tensor, image_size: int) -> PromptTensors:
    """``prompts``, each with a click in the largest region where ``masks`` is not what is ``wanted``; none in padding.

    masks, wanted: ``(N, h, w)`` bool, over the whole frame of ``image_size`` pixels.
    sizes: ``(N, 2)`` int64, the ``(h, w)`` of the frame that is image.
    """
    inside = cells_inside(sizes, masks.shape[-1], image_size)
    found, sought = torch.stack([masks & inside, wanted & inside]).cpu().numpy()
    clicks = [next_click(target, mask) for target, mask in zip(sought, found, strict=True)]
    return add_clicks(prompts, clicks, image_size / masks.shape[-1])


def cells_inside(sizes: Tensor, grid: int, image_size: int) -> Tensor:
    """``(B, grid, grid)`` bool: the cells of a frame of ``image_size`` pixels in which all is image.

    sizes: ``(B, 2)`` int64, the ``(h, w)`` of it that is image.
    """
    ends = torch.arange(1, grid + 1, device=sizes.device) * (image_size / grid)
    rows, columns = (ends <= side[:, None] for side in sizes.unbind(1))
    return rows[:, :, None] & columns[:, None, :]
