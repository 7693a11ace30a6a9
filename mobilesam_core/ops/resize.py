"""The model's input frame: how an image gets into it and masks get back out.

SAM scales the longest side to the frame's size, normalises, then pads right and bottom with zeros
(Kirillov et al., "Segment Anything", 2023; github.com/facebookresearch/segment-anything).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


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


def pad_to_frame(image: Tensor, size: int) -> Tensor:
    """Zero-pad ``(..., h, w)`` on the right and at the bottom to ``(..., size, size)``."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, size - width, 0, size - height))


def restore_masks(low_res_logits: Tensor, frame: Frame) -> Tensor:
    """Bring ``(N, K, h, w)`` low-resolution logits back to the original image: ``(N, K, H, W)`` logits.

    Bilinear to the frame, crop the padding, bilinear to the original size: exactly SAM's post-processing.
    """
    logits = F.interpolate(low_res_logits, (frame.size, frame.size), mode="bilinear", align_corners=False)
    logits = logits[..., : frame.scaled[0], : frame.scaled[1]]
    return F.interpolate(logits, frame.original, mode="bilinear", align_corners=False)


def to_tensor(image: np.ndarray) -> Tensor:
    """``(H, W)`` or ``(H, W, C)`` uint8 to a ``(C, H, W)`` uint8 tensor."""
    planes = image if image.ndim == 3 else image[..., None]
    return torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1)))
