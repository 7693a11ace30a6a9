"""From low-resolution logits to what is known of a mask at full resolution, without keeping the logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobilesam_core.ops.frame import Frame

_STRIPE = 2**19  # bytes of full-resolution logits at a time: they stay in a CPU's cache while they are looked at
_COLUMNS = 256  # columns to interpolate at a time: few logits reach them, and products with zeros take time

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Measured:
    """Of M masks at full resolution.

    areas: ``(M,)`` int64 pixels. boxes: ``(M, 4)`` int64, x1, y1, x2, y2 of the first and the last pixel; zeros of an
    empty mask. stability: ``(M,)`` float32, the IoU of a mask with itself when the threshold is raised and lowered:
    the one lies within the other, so it is a ratio of areas (not a number if even the larger is empty).
    """

    areas: np.ndarray
    boxes: np.ndarray
    stability: np.ndarray

    @staticmethod
    def of(counts: np.ndarray) -> Measured:
        """From ``(M, 7)`` int64: areas at the raised, the given and the lowered threshold, then the box."""
        inner, areas, outer = counts[:, 0], counts[:, 1], counts[:, 2]
        with np.errstate(invalid="ignore", divide="ignore"):
            return Measured(areas, counts[:, 3:], inner.astype(np.float32) / outer.astype(np.float32))


class MaskUpscaler:
    """Brings ``(h, w)`` logits to the size of an image, exactly as SAM's post-processing does, on a CPU.

    Two bilinear steps with a cut between are one linear map along the rows and one along the columns,
    ``rows @ logits @ columnsᵀ``, whose weights are positive and sum to one. So where logits lie below a level, with
    their neighbours, no pixel is above it, and where they lie above it, every pixel is: only what is between is
    computed, stripe by stripe.

    Args:
        grid: side of the low-resolution logits.
        convert: makes of a numpy array what logits will be given as, such as ``torch.from_numpy``.
    """

    def __init__(self, frame: Frame, grid: int, convert: Callable[[np.ndarray], Any] = np.asarray) -> None:
        rows, columns = interpolation(frame, grid)
        self.shape = len(rows), len(columns)
        self._row_reach, self._column_reach = _Reach(rows), _Reach(columns)
        self._rows, self._columns, self._convert = convert(rows), convert(columns), convert

    def measure(self, logits: Any, threshold: float, offset: float) -> Measured:
        """Measure the masks of ``(M, h, w)`` float32 logits above ``threshold``, and at ``offset`` around it."""
        counts = [self._count(each, threshold, offset) for each in logits]
        return Measured.of(np.array(counts, np.int64).reshape(len(counts), 7))

    def mask(self, logits: Any, threshold: float) -> np.ndarray:
        """The ``(H, W)`` bool mask of ``(h, w)`` float32 logits."""
        mask = np.zeros(self.shape, bool)
        window = self._window(logits, threshold)
        left, right = window[2:]
        for start, stop, weights, wide in self._stripes(logits, window):
            mask[start:stop, left:right] = np.asarray(weights @ wide) > threshold
        return mask

    def _count(self, logits: Any, threshold: float, offset: float) -> list[int]:
        """Areas at the raised, the given and the lowered threshold, then the box."""
        low, high = threshold - offset, threshold + offset
        window = self._window(logits, low)
        top, bottom, left, right = window
        inner = area = outer = 0
        rows, columns = np.zeros(bottom - top, bool), np.zeros(right - left, bool)
        # Of a small mask it takes longer to find the parts that need not be computed than to compute them.
        large = 4 * (bottom - top) * (right - left) > 2 * _STRIPE
        for start, stop, weights, wide in self._stripes(logits, window):
            sure, open_columns = 0, slice(None)
            if large:
                values = np.asarray(wide)
                inside = values.min(axis=0) > high
                sure, open_columns = np.count_nonzero(inside) * (stop - start), (values.max(axis=0) > low) & ~inside
                wide = self._convert(values[:, open_columns])
                columns |= inside
            block = np.asarray(weights @ wide)
            mask = block > threshold
            outer += sure + np.count_nonzero(block > low)
            inner += sure + np.count_nonzero(block > high)
            area += sure + np.count_nonzero(mask)
            rows[start - top : stop - top] = mask.any(axis=1) | (sure > 0)
            columns[open_columns] |= mask.any(axis=0)
        if not area:
            return [inner, area, outer, 0, 0, 0, 0]
        (y1, y2), (x1, x2) = (np.flatnonzero(line)[[0, -1]].tolist() for line in (rows, columns))
        return [inner, area, outer, left + x1, top + y1, left + x2, top + y2]

    def _window(self, logits: Any, level: float) -> Window:
        """Top, bottom, left and right of the part of the image that may exceed ``level``; empty if none does."""
        above = np.asarray(logits) > level
        rows, columns = (np.flatnonzero(above.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return 0, 0, 0, 0
        vertical = self._row_reach.outputs(int(rows[0]), int(rows[-1]))
        horizontal = self._column_reach.outputs(int(columns[0]), int(columns[-1]))
        return (*vertical, *horizontal)

    def _stripes(self, logits: Any, window: Window) -> Iterator[tuple[int, int, Any, Any]]:
        """A window, a few full rows at a time: first row, the row after the last, and the two factors of its logits.

        The first factor interpolates along the columns of the second, which has all columns of the window.
        """
        top, bottom, left, right = window
        if bottom <= top or right <= left:
            return
        above, below = self._row_reach.inputs(top, bottom)
        wide = self._widen(logits[above:below], left, right)
        height = max(1, _STRIPE // (4 * (right - left)))
        for start in range(top, bottom, height):
            stop = min(start + height, bottom)
            first, last = self._row_reach.inputs(start, stop)
            yield start, stop, self._rows[start:stop, first:last], wide[first - above : last - above]

    def _widen(self, logits: Any, left: int, right: int) -> Any:
        """``(h, right - left)``: rows of logits, interpolated for these columns of the image."""
        pieces = []
        for start in range(left, right, _COLUMNS):
            stop = min(start + _COLUMNS, right)
            first, last = self._column_reach.inputs(start, stop)
            pieces.append(logits[:, first:last] @ self._columns[start:stop, first:last].T)
        return pieces[0] if len(pieces) == 1 else self._convert(np.concatenate(pieces, axis=1))


def interpolation(frame: Frame, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """The maps ``(H, grid)`` along the rows and ``(W, grid)`` along the columns, float32: bilinear from ``grid`` to the
    frame, the padding cut off, and bilinear to the image."""
    framed = _linear(grid, frame.size)
    height, width = (
        _linear(scaled, original) @ framed[:scaled]
        for scaled, original in zip(frame.scaled, frame.original, strict=True)
    )
    return height, width


def _linear(size: int, wanted: int) -> np.ndarray:
    """``(wanted, size)`` float32: linear interpolation of ``size`` values, pixel centres aligned, edges repeated."""
    scale, half = np.float32(size) / np.float32(wanted), np.float32(0.5)
    places = np.maximum((np.arange(wanted, dtype=np.float32) + half) * scale - half, np.float32(0))
    left = np.minimum(places.astype(np.int64), size - 1)
    share = np.minimum(places - left.astype(np.float32), np.float32(1))
    weights = np.zeros((wanted, size), np.float32)
    rows = np.arange(wanted)
    weights[rows, left] = 1 - share
    weights[rows, np.minimum(left + 1, size - 1)] += share
    return weights


class _Reach:
    """Which inputs an output depends on, and which outputs an input reaches."""

    def __init__(self, weights: np.ndarray) -> None:
        used = weights != 0
        # Both grow along the image, so that what an input reaches is found by bisection.
        self._first = used.argmax(axis=1)
        self._last = used.shape[1] - 1 - used[:, ::-1].argmax(axis=1)

    def outputs(self, first: int, last: int) -> tuple[int, int]:
        """Start and stop of the outputs that depend on any input from ``first`` to ``last``."""
        return int(np.searchsorted(self._last, first)), int(np.searchsorted(self._first, last, "right"))

    def inputs(self, start: int, stop: int) -> tuple[int, int]:
        """Start and stop of the inputs that the outputs ``start`` to ``stop`` (exclusive) depend on."""
        return int(self._first[start]), int(self._last[stop - 1]) + 1
