"""What data sets give."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from mobilesam_core.ops.masks import InstanceMasks, PartMasks, Window


@dataclass(frozen=True)
class Sample:
    """One image and the masks of its objects, upright (EXIF rotation applied).

    key: names the image within its set, stable between runs (a path relative to the set, for most formats).
    image: ``(H, W, 3)`` uint8 RGB, or ``(H, W)`` uint8 for a model of one input channel.
    masks: one mask an object, at the size of the image.
    source: the path of the image file, or the name of the generator; for messages and to find stored features.
    remarks: what is odd about its annotations without keeping it from being used, a sentence each.
    """

    key: str
    image: np.ndarray
    masks: InstanceMasks
    source: str
    remarks: tuple[str, ...] = ()

    def part(self, window: Window) -> Sample:
        """What shows in ``window``, as an image of its own."""
        left, top, right, bottom = window
        return replace(self, image=self.image[top:bottom, left:right], masks=PartMasks(self.masks, window))


class SampleSource(Protocol):
    """A data set of any format: a sequence of samples, read when asked for.

    ``__getitem__`` raises :class:`~mobilesam_core.errors.DataError` naming the file when one cannot be used.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def describe(self, index: int) -> str:
        """The file or record behind ``index``, without reading it; for failure lists."""


@dataclass(frozen=True)
class BadFile:
    """One entry of ``failures.jsonl``: where in the set, which file, and what is wrong with it."""

    index: int
    source: str
    problem: str


def path_key(path: Path, root: Path) -> str:
    """A stable key for ``path``: relative to ``root``, with forward slashes."""
    return path.relative_to(root).as_posix()
