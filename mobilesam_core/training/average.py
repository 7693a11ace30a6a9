"""A moving average of the weights, kept beside those that learn (Polyak & Juditsky 1992; "EMA")."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from mobilesam_core.models.sam import Sam

Tensors = tuple[Tensor, ...] | list[Tensor]


def build_average(model: Sam, decay: float) -> AveragedModel:
    """A copy of ``model`` to which ``update_parameters(model)`` adds a step; buffers, as BatchNorm's, are averaged too.

    The average forgets faster at first, ``(1 + n) / (10 + n)`` after n steps while that is less than ``decay``:
    else a short run would end with half its start in it.
    """

    def add(averages: Tensors, values: Tensors, count: Tensor | int) -> None:
        if not averages[0].is_floating_point():
            torch._foreach_copy_(averages, values)
            return
        n = int(count)
        torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + n) / (10 + n)))

    average = AveragedModel(model, multi_avg_fn=add, use_buffers=True)
    average.requires_grad_(False)
    return average
