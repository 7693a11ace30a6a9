"""From low-resolution logits to what is known of a mask at full resolution, without keeping the logits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mobilesam_core.ops.resize import Frame

# Bytes of full-resolution logits at a time: on a CPU a stripe stays in its cache while it is looked at.
_STRIPE, _ACCELERATOR_BUDGET = 2**19, 2**30

Window = tuple[int, int, int, int]


@dataclass(frozen=True)
class Measured:
    """Of M masks at full resolution, on the device of their logits.

    areas: ``(M,)`` int64 pixels. boxes: ``(M, 4)`` int64, x1, y1, x2, y2 of the first and the last pixel; zeros
    of an empty mask. stability: ``(M,)`` float32, see :meth:`MaskUpscaler.measure`.
    """

    areas: Tensor
    boxes: Tensor
    stability: Tensor


class MaskUpscaler:
    """Brings ``(h, w)`` logits to the size of an image, exactly as SAM's post-processing does.

    Two bilinear steps with a cut between are one linear map along the rows and one along the columns,
    ``rows @ logits @ columnsᵀ``, whose weights are positive and sum to one. So where logits lie below a level, with
    their neighbours, no pixel is above it: on a CPU such parts of the image are not computed at all, and the others
    stripe by stripe.
    """

    def __init__(self, frame: Frame, grid: int, device: torch.device) -> None:
        self.rows = _interpolation(grid, frame.size, frame.scaled[0], frame.original[0]).to(device)
        self.columns = _interpolation(grid, frame.size, frame.scaled[1], frame.original[1]).to(device)
        self._row_reach, self._column_reach = _Reach(self.rows), _Reach(self.columns)

    def measure(self, logits: Tensor, threshold: float, offset: float) -> Measured:
        """Measure the masks of ``(M, h, w)`` float32 logits above ``threshold``.

        The stability of a mask is its IoU with itself when the threshold is raised and lowered by ``offset``: the one
        lies within the other, so it is a ratio of areas (not a number if even the larger is empty).
        """
        if logits.device.type == "cpu":
            counts = [self._count(each, threshold, offset) for each in logits]
            numbers = torch.tensor(counts, dtype=torch.int64).reshape(len(counts), 7)
        else:
            size = max(1, _ACCELERATOR_BUDGET // (4 * len(self.rows) * len(self.columns)))
            parts = logits.split(size)
            numbers = torch.cat([_count_all(self.rows @ p @ self.columns.mT, threshold, offset) for p in parts])
        inner, areas, outer, boxes = numbers[:, 0], numbers[:, 1], numbers[:, 2], numbers[:, 3:]
        return Measured(areas, boxes, inner / outer)

    def mask(self, logits: Tensor, threshold: float) -> np.ndarray:
        """The ``(H, W)`` bool mask of ``(h, w)`` float32 logits."""
        mask = np.zeros((len(self.rows), len(self.columns)), bool)
        window = self._window(logits, threshold)
        for top, block in self._stripes(logits, window):
            left, right = window[2:]
            mask[top : top + len(block), left:right] = (block > threshold).cpu().numpy()
        return mask

    def _count(self, logits: Tensor, threshold: float, offset: float) -> list[int]:
        """Areas at the raised, the given and the lowered threshold, then the box."""
        window = self._window(logits, threshold - offset)
        top, bottom, left, right = window
        inner = area = outer = 0
        rows, columns = np.zeros(bottom - top, bool), np.zeros(right - left, bool)
        for start, block in self._stripes(logits, window):
            values = block.numpy()
            outer += np.count_nonzero(values > threshold - offset)
            inner += np.count_nonzero(values > threshold + offset)
            mask = values > threshold
            area += np.count_nonzero(mask)
            rows[start - top : start - top + len(mask)] = mask.any(axis=1)
            columns |= mask.any(axis=0)
        if not area:
            return [inner, area, outer, 0, 0, 0, 0]
        (y1, y2), (x1, x2) = (np.flatnonzero(line)[[0, -1]].tolist() for line in (rows, columns))
        return [inner, area, outer, left + x1, top + y1, left + x2, top + y2]

    def _window(self, logits: Tensor, level: float) -> Window:
        """Top, bottom, left and right of the part of the image that may exceed ``level``; empty if none does."""
        above = logits > level
        rows, columns = above.any(dim=1).nonzero(), above.any(dim=0).nonzero()
        if not len(rows):
            return 0, 0, 0, 0
        vertical = self._row_reach.outputs(int(rows[0]), int(rows[-1]))
        horizontal = self._column_reach.outputs(int(columns[0]), int(columns[-1]))
        return (*vertical, *horizontal)

    def _stripes(self, logits: Tensor, window: Window) -> Iterator[tuple[int, Tensor]]:
        """The logits of a window, a few full rows at a time: the first row of each stripe, and its values."""
        top, bottom, left, right = window
        if bottom <= top or right <= left:
            return
        first, last = self._column_reach.inputs(left, right)
        wide = logits[:, first:last] @ self.columns[left:right, first:last].mT
        height = max(1, _STRIPE // (4 * (right - left)))
        for start in range(top, bottom, height):
            stop = min(start + height, bottom)
            first, last = self._row_reach.inputs(start, stop)
            yield start, self.rows[start:stop, first:last] @ wide[first:last]


def _count_all(logits: Tensor, threshold: float, offset: float) -> Tensor:
    """What :meth:`MaskUpscaler._count` says, of ``(M, H, W)`` logits at once: ``(M, 7)`` int64."""
    inner, outer = ((logits > level).sum(dim=(1, 2)) for level in (threshold + offset, threshold - offset))
    masks = logits > threshold
    (x1, x2), (y1, y2) = _extent(masks.any(dim=1)), _extent(masks.any(dim=2))
    return torch.stack([inner, masks.sum(dim=(1, 2)), outer, x1, y1, x2, y2], dim=1)


def _extent(marked: Tensor) -> tuple[Tensor, Tensor]:
    """First and last true of ``(M, L)`` bool; zeros where there is none."""
    numbers = marked.to(torch.uint8)
    first, from_end = numbers.argmax(dim=1), numbers.flip(1).argmax(dim=1)
    return first, (marked.shape[1] - 1 - from_end) * marked.any(dim=1)


def _interpolation(grid: int, frame_size: int, scaled: int, original: int) -> Tensor:
    """``(original, grid)`` float32: linear interpolation of ``grid`` values to ``frame_size``, of which ``scaled`` are
    kept, and of those to ``original``."""
    line = F.interpolate(torch.eye(grid)[:, None], frame_size, mode="linear", align_corners=False)
    return F.interpolate(line[..., :scaled], original, mode="linear", align_corners=False)[:, 0].T.contiguous()


class _Reach:
    """Which inputs an output depends on, and which outputs an input reaches."""

    def __init__(self, weights: Tensor) -> None:
        used = (weights != 0).cpu().numpy()
        # Both grow along the image, so that what an input reaches is found by bisection.
        self._first = used.argmax(axis=1)
        self._last = used.shape[1] - 1 - used[:, ::-1].argmax(axis=1)

    def outputs(self, first: int, last: int) -> tuple[int, int]:
        """Start and stop of the outputs that depend on any input from ``first`` to ``last``."""
        return int(np.searchsorted(self._last, first)), int(np.searchsorted(self._first, last, "right"))

    def inputs(self, start: int, stop: int) -> tuple[int, int]:
        """Start and stop of the inputs that the outputs ``start`` to ``stop`` (exclusive) depend on."""
        return int(self._first[start]), int(self._last[stop - 1]) + 1
