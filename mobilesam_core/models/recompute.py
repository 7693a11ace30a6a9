"""Less memory for more time: a block's inner values are computed again on the way back (Chen et al., "Training Deep
Nets with Sublinear Memory Cost", 2016)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class RecomputedBlocks(nn.Sequential):
    """Blocks one after the other, each of them :func:`recomputed`; named like those of any sequence."""

    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            x = recomputed(block, x)
        return x


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """``block(x)``, of which only ``x`` is kept for the gradients; they, and BatchNorm's statistics, stay the same."""
    if not torch.is_grad_enabled():
        plain: Tensor = block(x)
        return plain
    # No block draws random numbers, so there is no state of theirs to restore.
    again: Tensor = checkpoint(
        block,
        x,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=lambda: (nullcontext(), _statistics_untouched(block)),
    )
    return again


@contextmanager
def _statistics_untouched(block: nn.Module) -> Iterator[None]:
    """BatchNorm works on copies of its running statistics: the true ones have seen this batch already."""
    true = [
        (norm, name, buffer)
        for norm in block.modules()
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.training
        for name, buffer in norm.named_buffers(recurse=False)
    ]
    for norm, name, buffer in true:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in true:
            setattr(norm, name, buffer)
