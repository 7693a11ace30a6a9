"""The masks of one image's objects, held the way they came and made dense only when asked for.

An image may have hundreds of objects; a step trains on a few of them, in a window.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from mobilesam_core.ops.boxes import box_areas, boxes_inside, clip_boxes, mask_box
from mobilesam_core.ops.rle import compress_rle, decode_rle, rle_areas, rle_boxes

Window = tuple[int, int, int, int]
"""``(x1, y1, x2, y2)`` in image pixels, right and bottom edge exclusive."""


class InstanceMasks(ABC):
    """N masks of one image.

    shape: ``(H, W)`` of the image.
    boxes: ``(N, 4)`` float32 ``(x1, y1, x2, y2)``, right and bottom edge exclusive.
    areas: ``(N,)`` int64 pixels.
    labels: ``(N,)`` int64: the id, class or category of each object, as its file has it.
    """

    shape: tuple[int, int]
    boxes: np.ndarray
    areas: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def dense(self, indices: Sequence[int] | np.ndarray, window: Window | None = None) -> np.ndarray:
        """``(K, h, w)`` bool masks of the objects ``indices``, cut to ``window`` (None: the whole image)."""
        height, width = self.shape
        x1, y1, x2, y2 = window or (0, 0, width, height)
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            raise ValueError(f"window {window} is not inside an image of {width} x {height} pixels")
        return self._crop(np.asarray(indices, dtype=np.int64), slice(y1, y2), slice(x1, x2))

    @abstractmethod
    def _crop(self, indices: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """The masks of ``indices`` within ``rows`` and ``columns``."""


class LabelMapMasks(InstanceMasks):
    """Objects that do not overlap, from a ``(H, W)`` map of non-negative ids; 0 is background.

    Objects come in the order of their ids, which are their labels.
    """

    def __init__(self, label_map: np.ndarray) -> None:
        self.shape = (label_map.shape[0], label_map.shape[1])
        self._map = label_map
        rows, columns = np.nonzero(label_map)
        ids = label_map[rows, columns].astype(np.int64)
        # Ids are usually few and small; only a 32-bit map may hold some that are no array size.
        if ids.size and ids.max() > 1 << 20:
            self.labels, ids = np.unique(ids, return_inverse=True)
        else:
            counts = np.bincount(ids, minlength=1)
            self.labels = np.flatnonzero(counts)
            ids = (np.cumsum(counts > 0) - 1)[ids]
        number = len(self.labels)
        self.areas = np.bincount(ids, minlength=number)
        self.boxes = np.empty((number, 4), np.float32)
        for axis, places in enumerate((columns, rows)):
            first = np.full(number, max(self.shape), np.int64)
            last = np.zeros(number, np.int64)
            np.minimum.at(first, ids, places)
            np.maximum.at(last, ids, places)
            self.boxes[:, axis], self.boxes[:, axis + 2] = first, last + 1

    def _crop(self, indices: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        view = self._map[rows, columns]
        masks = np.empty((len(indices), *view.shape), bool)
        for mask, label in zip(masks, self.labels[indices], strict=True):
            np.equal(view, label, out=mask)
        return masks


class RleMasks(InstanceMasks):
    """Objects that may overlap, kept as COCO RLEs (compressed or plain) of an image of ``shape``.

    Raises:
        ValueError: an RLE is malformed or is of another size.
    """

    def __init__(
        self, rles: Sequence[Mapping[str, Any]], shape: tuple[int, int], labels: Sequence[int] | np.ndarray
    ) -> None:
        if len(labels) != len(rles):
            raise ValueError(f"{len(rles)} masks have {len(labels)} labels")
        self.shape = shape
        self.labels = np.asarray(labels, dtype=np.int64)
        self._rles = [compress_rle(rle) for rle in rles]
        for rle in self._rles:
            if rle["size"] != list(shape):
                raise ValueError(f"is an RLE of size {rle['size']} where the image's is {list(shape)}")
        self.areas = rle_areas(self._rles)
        self.boxes = rle_boxes(self._rles)

    def _crop(self, indices: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        masks = [decode_rle(self._rles[index])[rows, columns] for index in indices]
        empty = np.zeros((0, rows.stop - rows.start, columns.stop - columns.start), bool)
        return np.stack(masks) if masks else empty


class DenseMasks(InstanceMasks):
    """Objects that may overlap, as a ``(N, H, W)`` bool array; labels are 1..N unless given."""

    def __init__(self, masks: np.ndarray, labels: Sequence[int] | np.ndarray | None = None) -> None:
        number, height, width = masks.shape
        self.shape = (height, width)
        self.labels = np.arange(1, number + 1) if labels is None else np.asarray(labels, dtype=np.int64)
        self._masks = masks.astype(bool, copy=False)
        self.areas = np.count_nonzero(self._masks, axis=(1, 2)).astype(np.int64)
        self.boxes = np.array([mask_box(mask) for mask in self._masks], np.float32).reshape(number, 4)

    def _crop(self, indices: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        return np.ascontiguousarray(self._masks[indices][:, rows, columns])


class PartMasks(InstanceMasks):
    """Those of ``masks`` that show in a ``window`` of their image, in its pixels and as far as they show there.

    Only objects that the window cuts are made dense to be measured.
    """

    def __init__(self, masks: InstanceMasks, window: Window) -> None:
        left, top, right, bottom = window
        self.shape = (bottom - top, right - left)
        self._masks, self._window = masks, window
        boxes, areas = clip_boxes(masks.boxes, window), masks.areas.copy()
        boxes -= np.array([left, top, left, top], np.float32)
        touched = box_areas(boxes) > 0
        for cut in np.flatnonzero(touched & ~boxes_inside(masks.boxes, window)).tolist():
            shown = masks.dense([cut], window)[0]
            boxes[cut], areas[cut] = mask_box(shown), np.count_nonzero(shown)
        self._indices = np.flatnonzero(touched & (areas > 0))
        self.boxes, self.areas = boxes[self._indices], areas[self._indices]
        self.labels = masks.labels[self._indices]

    def _crop(self, indices: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        left, top, _, _ = self._window
        window = (left + columns.start, top + rows.start, left + columns.stop, top + rows.stop)
        return self._masks.dense(self._indices[indices], window)


def place_masks(masks: np.ndarray, window: Window, shape: tuple[int, int]) -> np.ndarray:
    """``(..., h, w)`` bool masks of a ``window`` as those of its image of ``shape`` ``(H, W)``, empty around it."""
    if masks.shape[-2:] == shape:
        return masks
    left, top, right, bottom = window
    placed = np.zeros((*masks.shape[:-2], *shape), bool)
    placed[..., top:bottom, left:right] = masks
    return placed


def resize_masks(masks: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Scale ``(K, H, W)`` bool masks to ``shape`` ``(h, w)`` by the nearest pixel.

    A mask so thin that it would fall between the pixels looked at keeps each cell it touches, so none
    vanishes.
    """
    height, width = masks.shape[1:]
    if shape == (height, width):
        return masks
    rows = ((np.arange(shape[0]) + 0.5) * height / shape[0]).astype(int)
    columns = ((np.arange(shape[1]) + 0.5) * width / shape[1]).astype(int)
    # Not masks[:, rows][:, :, columns], which numpy lays out with K innermost: all that follows would be slow.
    scaled = np.take(np.take(masks, columns, axis=2), rows, axis=1)
    for lost in np.flatnonzero(~scaled.any(axis=(1, 2))):
        touched_rows, touched_columns = np.nonzero(masks[lost])
        scaled[lost, touched_rows * shape[0] // height, touched_columns * shape[1] // width] = True
    return scaled


def mask_coverage(masks: np.ndarray, frame_size: int, grid_size: int) -> np.ndarray:
    """The share of each cell that a mask covers: ``(K, grid_size, grid_size)`` float32 in [0, 1].

    The grid is laid over the whole padded frame of ``frame_size`` squared, in whose top left corner the
    ``(K, h, w)`` bool masks lie.
    """
    height, width = masks.shape[1:]
    coverage = np.empty((len(masks), grid_size, grid_size), np.float32)
    canvas = np.zeros((frame_size, frame_size), np.float32)
    for mask, cells in zip(masks, coverage, strict=True):
        canvas[:height, :width] = mask
        cv2.resize(canvas, (grid_size, grid_size), dst=cells, interpolation=cv2.INTER_AREA)
    return coverage
