"""What is kept of a sample that was read: facts, no pixels."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilesam_core.config.data import DataConfig
from mobilesam_core.data.faults import single
from mobilesam_core.data.reading import read_image
from mobilesam_core.data.sample import SampleSource
from mobilesam_core.data.view import trainable_tiles
from mobilesam_core.errors import DataError


@dataclass(frozen=True)
class Objects:
    """Of an image of ``shape`` ``(H, W)``: ``areas`` in pixels and ``labels`` of its n objects, ``(n,)`` int64."""

    shape: tuple[int, int]
    areas: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Look:
    """One sample.

    digest: of the decoded picture; None if it cannot be read. objects: None if image or masks cannot be used.
    faults: why they cannot, or why the image cannot be trained on. remarks: the sample's own. tiles: in how many it is
    trained on.
    """

    source: str
    digest: bytes | None
    objects: Objects | None
    faults: tuple[DataError, ...] = ()
    remarks: tuple[str, ...] = ()
    tiles: int = 0


def look_at(source: SampleSource, index: int, channels: int, trained_on: DataConfig | None, size: int) -> Look:
    """Read a sample and keep what a check wants to know.

    Args:
        channels: of the images that ``source`` gives.
        trained_on: also whether an object is large enough to be trained on, as this says, in a frame of ``size``.
    """
    name = source.describe(index)
    try:
        sample = source[index]
    except DataError as error:
        return Look(name, _file_digest(Path(name), channels), None, single(error))
    objects = Objects(sample.masks.shape, sample.masks.areas, sample.masks.labels)
    faults: tuple[DataError, ...] = ()
    tiles = 0
    if trained_on is not None:
        try:
            tiles = len(trainable_tiles(sample, trained_on, size))
        except DataError as error:
            faults = (error,)
    return Look(name, _digest(sample.image), objects, faults, sample.remarks, tiles)


def _digest(image: np.ndarray) -> bytes:
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def _file_digest(path: Path, channels: int) -> bytes | None:
    """Of the picture of a sample whose masks cannot be used: it may be in the other set all the same."""
    try:
        return _digest(read_image(path, channels))
    except DataError:
        return None
