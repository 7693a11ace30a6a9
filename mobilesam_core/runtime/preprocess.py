"""From an image to what an exported encoder takes."""

from __future__ import annotations

import numpy as np

from mobilesam_core.ops.frame import Frame, resize_image
from mobilesam_core.runtime.facts import ModelFacts


def encoder_input(facts: ModelFacts, image: np.ndarray) -> np.ndarray:
    """The ``input_image`` of a ``(H, W, C)`` (``(H, W)`` for one channel) uint8 image: ``(1, C, S, S)`` float32,
    normalised and then padded with zeros; the image itself, ``(H, W, C)``, where the graph does that."""
    planes = image if image.ndim == 3 else image[..., None]
    if facts.preprocessing:
        return np.ascontiguousarray(planes)
    frame = Frame.of(image.shape[0], image.shape[1], facts.image_size)
    mean, std = (np.array(each, np.float32) for each in (facts.pixel_mean, facts.pixel_std))
    scaled = (resize_image(planes, frame).astype(np.float32) - mean) / std
    padded = np.zeros((1, planes.shape[2], frame.size, frame.size), np.float32)
    padded[0, :, : frame.scaled[0], : frame.scaled[1]] = scaled.transpose(2, 0, 1)
    return padded
