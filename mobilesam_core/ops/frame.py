"""The model's input frame, and how an image gets into it.

SAM scales the longest side to the frame's size, normalises, then pads right and bottom with zeros
(Kirillov et al., "Segment Anything", 2023; github.com/facebookresearch/segment-anything).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

STRIDE = 16
"""Pixels of the frame along one side of an image token; the same for every encoder here."""


@dataclass(frozen=True)
class Frame:
    """How one image lies in a square input frame: original and scaled ``(height, width)``, and the frame's side."""

    original: tuple[int, int]
    scaled: tuple[int, int]
    size: int

    @staticmethod
    def of(height: int, width: int, size: int) -> Frame:
        """The frame of a ``height`` x ``width`` image whose longest side is scaled to ``size``."""
        scale = size / max(height, width)
        # A sliver of an image must keep at least one pixel.
        scaled = (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))
        return Frame((height, width), scaled, size)

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Factors from original to frame coordinates, along x and y."""
        return self.scaled[1] / self.original[1], self.scaled[0] / self.original[0]


def resize_image(image: np.ndarray, frame: Frame) -> np.ndarray:
    """Scale a ``(H, W)`` or ``(H, W, C)`` uint8 image into ``frame``, not padded: bilinear, antialiased, by PIL."""
    if image.shape[:2] == frame.scaled:
        return image
    height, width = frame.scaled
    if image.ndim == 3 and image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    planes = image.reshape(*image.shape[:2], -1)
    scaled = [
        np.asarray(Image.fromarray(planes[..., c]).resize((width, height), Image.Resampling.BILINEAR))
        for c in range(planes.shape[2])
    ]
    return np.stack(scaled, axis=-1).reshape(height, width, *image.shape[2:])
