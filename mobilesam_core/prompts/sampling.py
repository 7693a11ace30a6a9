"""Prompts drawn from an object's mask, as SAM was trained on them.

Points are whole pixel coordinates: the prompt encoder adds the half that makes them pixel centres. Boxes
are edges, right and bottom exclusive, as annotations have them (Kirillov et al., "Segment Anything",
2023, appendix A). Everything here is a pure function of its arguments and the generator's state.
"""

from __future__ import annotations

import cv2
import numpy as np

from mobilesam_core.config.prompts import PromptConfig
from mobilesam_core.ops.boxes import mask_box
from mobilesam_core.prompts.types import Prompt


def sample_prompt(mask: np.ndarray, config: PromptConfig, rng: np.random.Generator) -> Prompt:
    """A box or points, mixed as ``config`` says, for a non-empty ``(H, W)`` bool mask, in its own pixels."""
    if rng.random() * (config.box + config.point) < config.box:
        box = jitter_box(mask_box(mask), mask.shape, config.box_noise, config.box_noise_max, rng)
        return Prompt.from_box(box)
    count = int(rng.integers(config.min_points, config.max_points + 1))
    from_center = config.point_mode == "center" or (config.point_mode == "mixed" and rng.random() < 0.5)
    points = uniform_points(mask, count, rng)
    if from_center:  # the thickest place first; any further points lie anywhere
        points[0] = center_point(mask)
    return Prompt.from_points(points)


def random_points(shape: tuple[int, ...], count: int, rng: np.random.Generator) -> list[Prompt]:
    """``count`` prompts of one foreground point each, anywhere in an image of ``shape`` ``(H, W, ...)``."""
    xy = np.floor(rng.random((count, 2)) * np.array([shape[1], shape[0]])).astype(np.float32)
    return [Prompt.from_points([point]) for point in xy]


def jitter_box(
    box: np.ndarray, shape: tuple[int, ...], noise: float, noise_max: float, rng: np.random.Generator
) -> np.ndarray:
    """``box`` with each edge moved, kept inside an image of ``shape`` and at least one pixel wide and high.

    Args:
        noise: standard deviation of the move, as a share of the box's side along that axis.
        noise_max: no edge moves farther than so many pixels.
    """
    sides = np.tile(box[2:] - box[:2], 2)
    moved = box + np.clip(rng.standard_normal(4) * noise * sides, -noise_max, noise_max)
    limits = np.array([shape[1], shape[0]], np.float64)
    low = np.clip(np.minimum(moved[:2], moved[2:]), 0, limits)
    high = np.clip(np.maximum(moved[:2], moved[2:]), 0, limits)
    middle = np.clip((low + high) / 2, 0.5, limits - 0.5)
    thin = high - low < 1
    low, high = np.where(thin, middle - 0.5, low), np.where(thin, middle + 0.5, high)
    return np.concatenate([low, high]).astype(np.float32)


def uniform_points(mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``(count, 2)`` float32 ``(x, y)`` of pixels of a non-empty mask; distinct if it has enough."""
    left, top, right, bottom = mask_box(mask).astype(int)
    rows, columns = np.nonzero(mask[top:bottom, left:right])
    picked = rng.choice(len(rows), count, replace=count > len(rows))
    return np.stack([columns[picked] + left, rows[picked] + top], axis=1).astype(np.float32)


def center_point(mask: np.ndarray) -> tuple[int, int]:
    """The pixel ``(x, y)`` of a non-empty mask that is farthest from its edge; the image border is an
    edge too.

    Of several the topmost, then the leftmost.
    """
    left, top, right, bottom = mask_box(mask).astype(int)
    inside = np.pad(mask[top:bottom, left:right].astype(np.uint8), 1)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # Squared distances are whole numbers; rounded, ties are ties whatever the last bit of a call was.
    row, column = divmod(int(np.rint(distance**2).argmax()), distance.shape[1])
    return int(left) + column - 1, int(top) + row - 1
