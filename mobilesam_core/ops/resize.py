"""Images into the model's input frame and masks back out of it, as torch computes it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobilesam_core.ops.frame import Frame


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
