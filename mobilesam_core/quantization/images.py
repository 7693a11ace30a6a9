"""The images that activations are measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from mobilesam_core.data.reading import read_image
from mobilesam_core.data.sample import SampleSource
from mobilesam_core.data.subset import spread


class ImageSource(Protocol):
    """``(H, W, C)`` uint8 images, read when asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...


class ImageFiles:
    """Image files, of 1 or 3 ``channels``."""

    def __init__(self, paths: Sequence[Path], channels: int) -> None:
        self._paths, self._channels = paths, channels

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return read_image(self._paths[index], self._channels)


class SampleImages:
    """The images of a data set."""

    def __init__(self, source: SampleSource) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> np.ndarray:
        return self._source[index].image


def chosen(images: ImageSource, limit: int) -> Iterator[np.ndarray]:
    """At most ``limit`` images, evenly spread, one at a time: nothing is kept.

    Raises:
        DataError: one cannot be read.
    """
    for index in spread(len(images), limit):
        yield images[index]
