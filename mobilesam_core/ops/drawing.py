"""Pictures of masks and prompts on images: RGB uint8 arrays in, RGB uint8 arrays out.

Drawing functions change their ``canvas`` in place; coordinates are its pixels.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from mobilesam_core.files import atomic_path
from mobilesam_core.ops.boxes import mask_box

Color = tuple[int, int, int]
GREEN: Color = (60, 220, 90)
RED: Color = (240, 60, 60)
YELLOW: Color = (255, 214, 10)
BLUE: Color = (40, 130, 255)
WHITE: Color = (255, 255, 255)

_GOLDEN_RATIO = 0.618034


def distinct_color(index: int) -> Color:
    """The ``index``-th of endlessly many bright colours, neighbours far apart in hue."""
    red, green, blue = colorsys.hsv_to_rgb((0.58 + index * _GOLDEN_RATIO) % 1, 0.8, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def new_canvas(image: np.ndarray) -> np.ndarray:
    """An RGB copy of a ``(H, W, 3)`` or ``(H, W)`` uint8 image, to draw on."""
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else np.array(image[..., :3], order="C")


def fill_mask(canvas: np.ndarray, mask: np.ndarray, color: Color, opacity: float = 0.45) -> None:
    """Tint the pixels of a ``(H, W)`` bool mask."""
    tinted = canvas[mask] * (1 - opacity) + np.array(color) * opacity
    canvas[mask] = np.round(tinted).astype(np.uint8)


def outline_mask(canvas: np.ndarray, mask: np.ndarray, color: Color, thickness: int = 1) -> None:
    """Draw the outer pixels of a ``(H, W)`` bool mask, holes included."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, color, thickness)


def draw_box(canvas: np.ndarray, box: np.ndarray, color: Color = YELLOW, thickness: int = 1) -> None:
    """Draw a box ``(x1, y1, x2, y2)`` whose right and bottom edges are exclusive."""
    x1, y1, x2, y2 = np.round(box).astype(int)
    cv2.rectangle(canvas, (int(x1), int(y1)), (int(max(x1, x2 - 1)), int(max(y1, y2 - 1))), color, thickness)


def draw_points(canvas: np.ndarray, points: np.ndarray, labels: np.ndarray, radius: int = 4) -> None:
    """Draw ``(n, 2)`` points as dots ringed in white: green where the label is 1, else red."""
    for (x, y), label in zip(np.round(points).astype(int), labels, strict=True):
        cv2.circle(canvas, (int(x), int(y)), radius + 1, WHITE, -1, cv2.LINE_AA)
        cv2.circle(canvas, (int(x), int(y)), radius, GREEN if label == 1 else RED, -1, cv2.LINE_AA)


def line_width(canvas: np.ndarray) -> int:
    """A thickness that shows on a picture of this size."""
    return max(1, round(max(canvas.shape[:2]) / 300))


@dataclass(frozen=True)
class Closeup:
    """A window of an image, magnified.

    window: ``(x1, y1, x2, y2)`` in pixels of the image, right and bottom exclusive. scale: magnification.
    """

    window: tuple[int, int, int, int]
    scale: float

    @staticmethod
    def around(region: np.ndarray, margin: float = 0.25, side: int = 512) -> Closeup:
        """The view of what is True in a ``(H, W)`` mask, or of the whole image when nothing is.

        margin: around it, as a share of its longer side. side: longer side of the view in its own pixels.
        """
        height, width = region.shape
        x1, y1, x2, y2 = (int(edge) for edge in mask_box(region))
        window = (0, 0, width, height)
        if x2 > x1:
            # At least some pixels, so that a speck keeps its surroundings.
            pad = max(4, round(margin * max(x2 - x1, y2 - y1)))
            window = (max(0, x1 - pad), max(0, y1 - pad), min(width, x2 + pad), min(height, y2 + pad))
        return Closeup(window, side / max(window[2] - window[0], window[3] - window[1]))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the view in its own pixels."""
        x1, y1, x2, y2 = self.window
        return max(1, round((x2 - x1) * self.scale)), max(1, round((y2 - y1) * self.scale))

    def image(self, image: np.ndarray) -> np.ndarray:
        """The view of an image, as a canvas."""
        x1, y1, x2, y2 = self.window
        smooth = cv2.INTER_CUBIC if self.scale > 1 else cv2.INTER_AREA
        return cv2.resize(new_canvas(image[y1:y2, x1:x2]), self.size, interpolation=smooth)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """The view of a ``(H, W)`` bool mask."""
        x1, y1, x2, y2 = self.window
        crop = np.ascontiguousarray(mask[y1:y2, x1:x2]).astype(np.uint8)
        return cv2.resize(crop, self.size, interpolation=cv2.INTER_NEAREST_EXACT) > 0

    def points(self, points: np.ndarray) -> np.ndarray:
        """Where the middles of the pixels ``(n, 2)`` are in the view."""
        return (points + 0.5 - np.array(self.window[:2])) * self.scale

    def box(self, box: np.ndarray) -> np.ndarray:
        """Where a box's edges are in the view."""
        return (box - np.array(self.window[:2] * 2)) * self.scale


def write_png(path: Path, image: np.ndarray) -> None:
    """Write a ``(H, W)`` or ``(H, W, 3)`` uint8 array, or a ``(H, W)`` bool mask as 0 and 255, atomically.

    Raises:
        OutputError: the file cannot be written.
    """
    pixels = image.astype(np.uint8) * 255 if image.dtype == bool else image
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def draw_comparison(
    image: np.ndarray,
    targets: Sequence[np.ndarray] | np.ndarray,
    masks: Sequence[np.ndarray] | np.ndarray,
    points: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    boxes: Sequence[np.ndarray] | np.ndarray = (),
) -> np.ndarray:
    """A picture of ``image`` with the truth outlined in green, the prediction tinted blue, and the prompts.

    targets, masks: any number of ``(H, W)`` bool masks. points: ``(n, 2)``, with n labels. boxes: any number of
    ``(x1, y1, x2, y2)``.
    """
    canvas = new_canvas(image)
    width = line_width(canvas)
    for mask in masks:
        fill_mask(canvas, mask, BLUE)
    for target in targets:
        outline_mask(canvas, target, GREEN, width)
    for box in boxes:
        draw_box(canvas, box, YELLOW, width)
    if points is not None and labels is not None:
        draw_points(canvas, points, labels, radius=2 + width)
    return canvas
