"""What the levels of an image encoder are called, and in which order their features have their axes."""

from __future__ import annotations

from typing import Literal

NECK = "neck"
"""The final embedding, what the decoder reads; ``blocks.N`` (plain ViT) and ``stages.N`` (TinyViT) are inner levels,
counted from 0."""

Layout = Literal["CHW", "HWC"]
"""Channels first, as convolutions have them, or last, as the blocks of a plain ViT do."""
