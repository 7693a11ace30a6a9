"""Learning rate as a pure function of the optimizer step."""

from __future__ import annotations

import torch
from torch.optim import Optimizer


def polynomial_factor(
    step: int, total_steps: int, warmup_steps: int = 0, power: float = 1.0, end_factor: float = 0.0
) -> float:
    """Share of the peak learning rate at optimizer step ``step``, counted from 0.

    Warm-up is linear and reaches 1 at step ``warmup_steps``; then
    ``(1 - end_factor) · (1 - t / T)^power + end_factor``, which is exactly ``end_factor`` at the last step,
    ``total_steps - 1``.
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    decay_steps = max(1, total_steps - 1 - warmup_steps)
    left = max(0.0, 1.0 - (step - warmup_steps) / decay_steps)
    return (1.0 - end_factor) * left**power + end_factor


class PolynomialLR(torch.optim.lr_scheduler.LambdaLR):
    """Polynomial decay with warm-up: one ``step()`` an optimizer step.

    ``end_factor`` is the share of its own peak rate at which every parameter group ends.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        warmup_steps: int = 0,
        power: float = 1.0,
        end_factor: float = 0.0,
    ) -> None:
        super().__init__(
            optimizer,
            lambda step: polynomial_factor(step, total_steps, warmup_steps, power, end_factor),
        )
