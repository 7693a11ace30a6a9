"""Telling masks from images, and how masks are to be read."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from mobilesam_core.config.data import MaskMode
from mobilesam_core.data.reading import LOSSY_SUFFIXES, read_binary_mask, read_label_map
from mobilesam_core.data.subset import some_of
from mobilesam_core.errors import DataError
from mobilesam_core.ops.masks import LabelMapMasks

_LOOKED_AT = 12
_SPECK = 0.02  # of the largest part: less is no part of its own
_OBJECTS = 40  # of a mask that are looked at
_COLOURS = 1 << 16  # of a mask that are counted
_IGNORED = 255  # by custom, what is no class


class MaskReading(NamedTuple):
    """How masks are to be read, and why, in a few words."""

    mode: MaskMode
    ignore_index: int | None
    why: str


class Glance(NamedTuple):
    """What tells masks from images at a glance.

    flatness: the share of pixels that have the colour of their neighbour to the left. one_channel: grey, or a palette.
    """

    flatness: float
    one_channel: bool


def glance(path: Path) -> Glance | None:
    """Look at an image file; None for one that cannot be read."""
    image = _opened(path)
    if image is None or image.width < 2:
        return None
    pixels = np.asarray(image)
    pixels = pixels.reshape(*pixels.shape[:2], -1).astype(np.int32)
    # Compression smears a mask's edges by a few grey values.
    most = 8 if path.suffix.lower() in LOSSY_SUFFIXES else 0
    apart = np.abs(pixels[:, 1:] - pixels[:, :-1]).max(axis=2) > most
    return Glance(1.0 - float(apart.mean()), image.mode in ("1", "L", "P") or image.mode[0] in "IF")


def read_masks_as(files: Sequence[Path]) -> MaskReading:
    """How mask files, one an image, are to be read, judged by some of them.

    Raises:
        DataError: none can be read, or several colours are meant to be several objects.
    """
    looked = [path for path in some_of(files, _LOOKED_AT) if _opened(path) is not None]
    if not looked:
        raise DataError(f"{files[0].parent} holds no mask that can be read.", "Repair the files.")
    try:
        maps = [read_label_map(path, _shape(path)) for path in looked]
    except DataError:  # in colour, or smeared by compression
        _refuse_colours(looked)
        return _of_binary([read_binary_mask(path, _shape(path)).astype(np.uint8) for path in looked])
    marked = [LabelMapMasks(each) for each in maps if each.any()]
    if not marked:
        raise DataError(f"The masks of {files[0].parent} that were looked at mark no object.", "Mark the objects.")
    return _of_ids(marked, maps)


def _opened(path: Path) -> Image.Image | None:
    """The decoded file; None where it cannot be read."""
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError):
        return None


def _shape(path: Path) -> tuple[int, int]:
    """Of a mask itself, so that it fits."""
    with Image.open(path) as image:
        return image.height, image.width


def _refuse_colours(files: Sequence[Path]) -> None:
    """Masks of one colour are binary; of several, nobody has said what each stands for."""
    for path in files:
        image = _opened(path)
        if image is None or image.mode not in ("RGB", "RGBA") or path.suffix.lower() in LOSSY_SUFFIXES:
            continue
        colours = image.convert("RGB").getcolors(_COLOURS)
        count = _COLOURS if colours is None else sum(colour != (0, 0, 0) for _, colour in colours)
        if count > 1:
            raise DataError(
                f"{path} is a mask of {count if colours else f'more than {count}'} colours, and ids are read from one "
                "channel.",
                "Save ids or classes as grey or palette PNGs; or, if any colour means object, as 0 and 255.",
            )


def _of_ids(masks: Sequence[LabelMapMasks], maps: Sequence[np.ndarray]) -> MaskReading:
    if all(len(each) == 1 for each in masks) and len({int(each.labels[0]) for each in masks}) == 1:
        return _of_binary([(each > 0).astype(np.uint8) for each in maps])
    labels = [set(each.labels.tolist()) for each in masks]
    largest = max(max(each - {_IGNORED}, default=0) for each in labels)
    ignored = any(_IGNORED in each for each in labels) and largest < _IGNORED // 2
    whole, seen = 0, 0
    for each in masks:
        for place in some_of(range(len(each)), _OBJECTS):
            seen += 1
            whole += _parts(_cut(each, place)) == 1
    counted = np.mean([each == set(range(1, len(each) + 1)) for each in labels])
    if not ignored and whole >= 0.9 * seen and (counted >= 0.5 or largest > _IGNORED):
        return MaskReading("instances", None, f"ids (up to {largest}), each in one piece")
    if len(set.union(*labels)) > 256:
        return MaskReading("instances", None, f"ids (up to {largest})")
    classes = len(set.union(*labels) - ({_IGNORED} if ignored else set()))
    return MaskReading("classes", _IGNORED if ignored else None, f"{classes} classes, often in several pieces")


def _of_binary(masks: Sequence[np.ndarray]) -> MaskReading:
    parts = [_parts(mask) for mask in masks if mask.any()]
    several = sum(each > 1 for each in parts)
    if several >= 0.25 * max(1, len(parts)):
        return MaskReading("components", None, "one value, often in several pieces")
    return MaskReading("binary", None, "one value, in one piece")


def _cut(masks: LabelMapMasks, place: int) -> np.ndarray:
    x1, y1, x2, y2 = masks.boxes[place].astype(int).tolist()
    return masks.dense([place], (x1, y1, x2, y2))[0].astype(np.uint8)


def _parts(mask: np.ndarray) -> int:
    """Connected pieces, specks left out."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(mask))
    areas = stats[1:, cv2.CC_STAT_AREA]
    return int((areas >= max(4, _SPECK * areas.max(initial=0))).sum()) or int(len(areas) > 0)
