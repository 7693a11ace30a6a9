"""Run-length encoded masks in COCO's two forms, compressed and plain, and polygons.

An RLE is ``{"size": [H, W], "counts": ...}``: runs of 0 and 1 by turns, beginning with 0, down the columns.
``counts`` is a list of run lengths or COCO's compressed string. Everything read here may come from a
stranger's file, so each mistake is a ValueError whose text finishes the sentence "this segmentation ...".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

_MAX_PIXELS = 2**31 - 1  # pycocotools counts in 32 bits


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Compress a ``(H, W)`` mask; ``counts`` is a str, ready for JSON."""
    return _as_json(coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)))


def decode_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """The ``(H, W)`` bool mask of a compressed or plain RLE.

    Raises:
        ValueError: the RLE is malformed, or its runs do not add up to ``H * W``.
    """
    height, width = _rle_size(rle)
    runs = _run_lengths(rle, height * width)
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(bits.reshape(width, height).T)


def compress_rle(rle: Mapping[str, Any]) -> dict[str, Any]:
    """Check a compressed or plain RLE and return it compressed.

    Raises:
        ValueError: the RLE is malformed, or its runs do not add up to ``H * W``.
    """
    height, width = _rle_size(rle)
    runs = _run_lengths(rle, height * width)
    if isinstance(rle["counts"], list):
        return _as_json(coco_mask.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width))
    return _as_json({"size": [height, width], "counts": rle["counts"]})


def expand_rle(rle: Mapping[str, Any]) -> dict[str, Any]:
    """Check a compressed or plain RLE and return it plain.

    Raises:
        ValueError: the RLE is malformed, or its runs do not add up to ``H * W``.
    """
    height, width = _rle_size(rle)
    return {"size": [height, width], "counts": _run_lengths(rle, height * width).tolist()}


def polygons_to_rle(polygons: Sequence[Sequence[float]], height: int, width: int) -> dict[str, Any]:
    """The compressed RLE of the union of ``polygons``, each ``[x1, y1, x2, y2, ...]`` in pixels.

    Raises:
        ValueError: a polygon has fewer than 3 points, an odd number of coordinates, a coordinate that is no
            finite number, or one that lies far outside the image.
    """
    if not polygons:
        raise ValueError("has no polygon")
    reach = max(height, width)
    outlines = []
    for polygon in polygons:
        try:
            points = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError("has a polygon that is no list of numbers") from error
        except OverflowError as error:
            raise ValueError("has a coordinate too large to be one") from error
        if points.ndim != 1 or len(points) % 2 or len(points) < 6:
            raise ValueError("has a polygon that is not [x1, y1, x2, y2, ...] of at least 3 points")
        if not np.isfinite(points).all():
            raise ValueError("has a coordinate that is not a finite number (NaN or infinity)")
        # The rasteriser walks every edge pixel by pixel: a wild coordinate would cost gigabytes.
        if points.min() < -reach or points.max() > 2 * reach:
            raise ValueError(f"has a polygon far outside the image of {width} x {height} pixels")
        outlines.append(points.tolist())
    return _as_json(coco_mask.merge(coco_mask.frPyObjects(outlines, height, width)))


def rle_areas(rles: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """``(N,)`` int64 pixel counts of compressed RLEs."""
    # One by one: given more than 255 at once, pycocotools 2.0.11 fails with NumPy 2.
    return np.array([int(coco_mask.area(rle)) for rle in rles], dtype=np.int64)


def rle_boxes(rles: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """``(N, 4)`` float32 XYXY boxes of compressed RLEs, right and bottom exclusive; zeros if empty."""
    boxes = np.asarray(coco_mask.toBbox(list(rles)), dtype=np.float32).reshape(len(rles), 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def rle_ious(rles: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """``(N, M)`` float64 IoUs of N with M compressed RLEs of one size."""
    ious = coco_mask.iou(list(rles), list(others), [0] * len(others)) if rles and others else []
    return np.asarray(ious, dtype=np.float64).reshape(len(rles), len(others))


def _as_json(rle: Mapping[str, Any]) -> dict[str, Any]:
    counts = rle["counts"]
    return {
        "size": [int(side) for side in rle["size"]],
        "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
    }


def _rle_size(rle: Mapping[str, Any]) -> tuple[int, int]:
    size = rle.get("size")
    if (
        not isinstance(size, (list, tuple))
        or len(size) != 2
        or not all(isinstance(side, (int, np.integer)) and side > 0 for side in size)
    ):
        raise ValueError(f"has the size {size!r}, not [height, width]")
    if size[0] * size[1] > _MAX_PIXELS:
        raise ValueError(f"has the size {size!r}, which is too large")
    return int(size[0]), int(size[1])


def _run_lengths(rle: Mapping[str, Any], pixels: int) -> np.ndarray:
    counts = rle.get("counts")
    if isinstance(counts, (str, bytes)):
        runs = _parse_counts(counts)
    elif isinstance(counts, list) and all(isinstance(run, int) and abs(run) <= pixels for run in counts):
        runs = np.asarray(counts, dtype=np.int64)
    else:
        raise ValueError("has counts that are neither run lengths nor a string")
    if (runs < 0).any():
        raise ValueError("has a run of negative length")
    if runs.sum() != pixels:
        raise ValueError(f"is an RLE of {runs.sum()} pixels where its size says {pixels}")
    return runs


def _parse_counts(counts: str | bytes) -> np.ndarray:
    """COCO's compressed counts: base-32 digits, least significant first, from character 48 on.

    Bit 5 of a digit says that more follow, bit 4 of the last one is the sign, and from the fourth run on
    each value is the difference from the run two before it.
    """
    digits = np.frombuffer(counts.encode() if isinstance(counts, str) else counts, np.uint8).astype(np.int64) - 48
    if len(digits) == 0 or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        raise ValueError("has counts that are no compressed RLE")
    ends = np.flatnonzero(digits & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 8:
        raise ValueError("has counts that are no compressed RLE")
    place = 5 * (np.arange(len(digits)) - np.repeat(starts, lengths))
    values = np.add.reduceat((digits & 31) << place, starts)
    values -= (digits[ends] >> 4 & 1) << 5 * lengths
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
