"""Which place of an image a place of the model's frame shows, and bringing features from one frame to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobilesam_core.ops.frame import Frame
from mobilesam_core.ops.masks import Window


@dataclass(frozen=True)
class Placement:
    """``image = matrix @ frame + offset``, both ``(x, y)`` from 0 to 1: of the padded frame, and of the whole image.

    matrix: ``(2, 2)`` float64. offset: ``(2,)`` float64.
    """

    matrix: np.ndarray
    offset: np.ndarray

    @staticmethod
    def of(shape: tuple[int, int], window: Window, quarters: np.ndarray, frame: Frame) -> Placement:
        """Of a ``window`` of an image of ``shape`` ``(H, W)`` that was turned as ``quarters`` says
        (:class:`~mobilesam_core.data.augment.Augmented`) and then scaled into ``frame``."""
        size, sides = np.array([shape[1], shape[0]]), np.array([window[2] - window[0], window[3] - window[1]])
        corner, right, below = (np.array(divmod(int(value), 2)[::-1]) for value in quarters.flat[:3])
        turn = np.stack([right - corner, below - corner], axis=1)
        into_window = turn * (frame.size / np.array([frame.scaled[1], frame.scaled[0]]))
        scale = (sides / size)[:, None]
        return Placement(scale * into_window, (np.array(window[:2]) + sides * corner) / size)


def place_features(features: Tensor, stored: Frame, placement: Placement) -> Tensor:
    """Features of a whole image as those of a part of it, turned and magnified alike: bilinear, ``(C, h, w)``.

    What lies outside the stored frame gets what is nearest. Features that belong where they are stay as they are.

    Args:
        features: ``(C, h, w)`` of the image in the frame ``stored``.
        placement: of the frame that they are wanted for.
    """
    share = np.array([stored.scaled[1], stored.scaled[0]]) / stored.size
    matrix, offset = share[:, None] * placement.matrix, share * placement.offset
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]).T
    moved = np.abs(matrix @ corners + offset[:, None] - corners).max()
    if moved * features.shape[-1] < 0.25:  # of a cell: frames are rounded to whole pixels
        return features
    # From 0..1 to the -1..1 of grid_sample, on both sides.
    theta = np.concatenate([matrix, (matrix.sum(axis=1) + 2 * offset - 1)[:, None]], axis=1)
    shape = (1, *features.shape)
    grid = F.affine_grid(torch.from_numpy(theta).float()[None], list(shape), align_corners=False)
    placed = F.grid_sample(features[None].float(), grid, padding_mode="border", align_corners=False)
    return placed[0].to(features.dtype)
