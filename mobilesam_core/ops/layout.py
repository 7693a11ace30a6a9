"""What the levels of an image encoder are called, and in which order their features have their axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

NECK = "neck"
"""The final embedding, what the decoder reads; ``blocks.N`` (plain ViT) and ``stages.N`` (TinyViT) are inner levels,
counted from 0."""

Layout = Literal["CHW", "HWC"]
"""Channels first, as convolutions have them, or last, as the blocks of a plain ViT do."""


def channels_first(features: Tensor, layout: Layout) -> Tensor:
    """``(..., C, h, w)`` of features in any layout, without a copy."""
    return features if layout == "CHW" else features.movedim(-1, -3)
