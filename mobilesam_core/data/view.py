"""Which part of an image training looks at, and how large."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from mobilesam_core.config.data import AugmentConfig, DataConfig
from mobilesam_core.data.sample import Sample
from mobilesam_core.errors import DataError
from mobilesam_core.ops.boxes import box_areas, boxes_inside, clip_boxes
from mobilesam_core.ops.frame import Frame
from mobilesam_core.ops.masks import InstanceMasks, PartMasks, Window
from mobilesam_core.ops.tiles import Tiling


@dataclass(frozen=True)
class View:
    """A window of an image, magnified by ``factor`` on its way into the frame.

    anchor: the object it was placed on, which is trained on in any case; None where the image has no object.
    """

    window: Window
    factor: float
    anchor: int | None

    def frame(self, height: int, width: int, size: int) -> Frame:
        """How the window, ``height`` x ``width`` (transposing swaps them), lies in a frame of ``size``."""
        scaled = [max(1, min(size, int(side * self.factor + 0.5))) for side in (height, width)]
        return Frame((height, width), (scaled[0], scaled[1]), size)


class SeenView(NamedTuple):
    """What is seen of the image ``source``: a window of it, and what tells how it was changed on its way into the
    frame; "" for all of it, unchanged."""

    source: str
    window: Window
    change: str

    @staticmethod
    def of(sample: Sample, corner: tuple[int, int], view: View, seed: int | None) -> SeenView:
        """``view`` of the part of ``sample`` that begins at ``corner``; ``seed`` is augmentation's (None: there is
        none)."""
        (x, y), (left, top, right, bottom) = corner, view.window
        window = (left + x, top + y, right + x, bottom + y)
        height, width = sample.masks.shape
        if seed is not None:
            change = f"{view.factor:.6g} {seed}"
        else:
            change = "" if window == (0, 0, width, height) else f"{view.factor:.6g}"
        return SeenView(sample.source, window, change)


class Tile(NamedTuple):
    """A ``window`` of the image at ``place`` in a source."""

    place: int
    window: Window


def trainable_tiles(sample: Sample, data: DataConfig, size: int) -> list[Window]:
    """The tiles of an image in which an object can reach ``data.min_object_area`` in a frame of ``size`` pixels; of an
    image without labels all tiles. Without ``data.tile`` the whole image is one.

    Raises:
        DataError: there is none.
    """
    (height, width), tiling = sample.masks.shape, Tiling.of(data)
    tiles = [(0, 0, width, height)] if tiling is None else tiling.windows(height, width)
    if tiling is None or len(tiles) == 1:
        check_trainable(sample, data, size)
        return tiles
    if len(sample.masks) == 0:
        return tiles
    factor = largest_factor(tiling.shape(height, width), data.augment, size)
    found = [tile for tile in tiles if _shows_enough(sample.masks, tile, factor, data.min_object_area)]
    if not found:
        least = data.min_object_area
        raise _too_small(f"{sample.source}: in no tile an object covers {least} pixels of the model's input.", data)
    return found


def check_trainable(sample: Sample, data: DataConfig, size: int) -> None:
    """Raise a DataError if no object can reach ``data.min_object_area`` in a frame of ``size`` pixels.

    The same test as training's, for the largest magnification the config allows.
    """
    if len(sample.masks) == 0:  # without labels
        return
    area = sample.masks.areas.max() * largest_factor(sample.masks.shape, data.augment, size) ** 2
    if area < data.min_object_area:
        raise _too_small(f"{sample.source}: the largest object covers {area:.1f} pixels of the model's input.", data)


def _too_small(problem: str, data: DataConfig) -> DataError:
    return DataError(
        problem,
        f"Less than data.min_object_area ({data.min_object_area}) is not trained on: raise model.image_size, magnify "
        "with data.tile or data.augment.crop, lower the limit, or remove the image.",
        "too_small",
    )


def _shows_enough(masks: InstanceMasks, tile: Window, factor: float, least: int) -> bool:
    whole = boxes_inside(masks.boxes, tile)
    if (masks.areas[whole] * factor**2 >= least).any():
        return True
    return bool((PartMasks(masks, tile).areas * factor**2 >= least).any())


def largest_factor(shape: tuple[int, int], augment: AugmentConfig, size: int) -> float:
    """By how much ``augment`` may magnify an image of ``shape`` ``(H, W)`` into a frame of ``size`` pixels, at most."""
    return max(size / max(sides) for sides in (_sides(shape, augment, augment.scale[1]), shape))


def choose_view(sample: Sample, data: DataConfig, size: int, rng: np.random.Generator) -> View:
    """Draw the scale jitter, an object large enough at that scale, and a window on it.

    An object that fits is seen whole; in an image without any, the window lies anywhere. When the drawn scale leaves
    none large enough, the largest scale is taken, and at last the whole image.

    Raises:
        DataError: see :func:`check_trainable`.
    """
    check_trainable(sample, data, size)
    masks, augment = sample.masks, data.augment
    low, high = augment.scale
    drawn = math.exp(rng.uniform(math.log(low), math.log(high)))
    if len(masks) == 0:
        sides = _sides(masks.shape, augment, drawn)
        return View(_place(masks, None, sides, rng), size / max(sides), None)
    choices = (_sides(masks.shape, augment, drawn), _sides(masks.shape, augment, high), masks.shape)
    sides = next(each for each in choices if masks.areas.max() * (size / max(each)) ** 2 >= data.min_object_area)
    factor = size / max(sides)
    anchor = int(rng.choice(np.flatnonzero(masks.areas * factor**2 >= data.min_object_area)))
    return View(_place(masks, anchor, sides, rng), factor, anchor)


def choose_anchor(masks: InstanceMasks, view: View, data: DataConfig, rng: np.random.Generator) -> View:
    """The same view of another object that it shows whole, drawn anew, so that no object is trained on each time.

    Where it shows none whole and large enough, the anchor stays.
    """
    if view.anchor is None:
        return view
    whole = boxes_inside(masks.boxes, view.window)
    eligible = np.flatnonzero(whole & (masks.areas * view.factor**2 >= data.min_object_area))
    return replace(view, anchor=int(rng.choice(eligible))) if len(eligible) else view


def choose_objects(masks: InstanceMasks, view: View, data: DataConfig, rng: np.random.Generator) -> np.ndarray:
    """``(K, h, w)`` bool masks, in the window, of the anchor and of others that show enough there."""
    if view.anchor is None:
        return masks.dense([], view.window)
    in_window = box_areas(clip_boxes(masks.boxes, view.window)) * view.factor**2 >= data.min_object_area
    in_window[view.anchor] = False
    others = rng.permutation(np.flatnonzero(in_window))[: data.max_objects - 1]
    chosen = masks.dense([view.anchor, *others], view.window)
    large_enough = np.count_nonzero(chosen, axis=(1, 2)) * view.factor**2 >= data.min_object_area
    large_enough[0] = True  # of an anchor larger than the window only a part need be seen
    return chosen[large_enough]


def _sides(shape: tuple[int, int], augment: AugmentConfig, scale: float) -> tuple[float, float]:
    """Height and width, in pixels of an image of ``shape``, that fill the frame at ``scale``."""
    height, width = (augment.crop, augment.crop) if augment.crop else shape
    return height / scale, width / scale


def _place(masks: InstanceMasks, anchor: int | None, sides: tuple[float, float], rng: np.random.Generator) -> Window:
    height, width = (min(extent, max(1, round(side))) for extent, side in zip(masks.shape, sides, strict=True))
    if anchor is None:
        rooms = (extent - side for extent, side in zip(masks.shape, (height, width), strict=True))
        top, left = (int(rng.integers(room + 1)) for room in rooms)
        return left, top, left + width, top + height
    box = masks.boxes[anchor].astype(int)
    pixel = (0, 0)
    if box[3] - box[1] > height or box[2] - box[0] > width:
        rows, columns = np.nonzero(masks.dense([anchor])[0])
        picked = rng.integers(len(rows))
        pixel = (int(rows[picked]), int(columns[picked]))
    top = _start(box[1], box[3], pixel[0], height, masks.shape[0], rng)
    left = _start(box[0], box[2], pixel[1], width, masks.shape[1], rng)
    return left, top, left + width, top + height


def _start(low: int, high: int, pixel: int, side: int, extent: int, rng: np.random.Generator) -> int:
    """Where a window of ``side`` begins that holds ``low`` to ``high``, or else ``pixel`` near its middle."""
    if high - low <= side:
        first, last = high - side, low
    else:
        first, last = pixel - 3 * side // 4, pixel - side // 4
    first, last = (min(max(0, start), extent - side) for start in (first, last))
    return int(rng.integers(first, last + 1))
