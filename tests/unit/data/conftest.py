"""Small data sets written to a temporary folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.config.data import FolderConfig
from mobilesam_core.data.sample import Sample
from mobilesam_core.errors import DataError
from mobilesam_core.ops.masks import LabelMapMasks

WriteFolder = Callable[..., FolderConfig]


@pytest.fixture
def write_folder(tmp_path: Path) -> WriteFolder:
    """Writes ``images/<stem>.png`` and ``masks/<stem>.png`` for each stem and returns the config; root: tmp_path."""

    def write(mode: str, masks: dict[str, np.ndarray], **options: object) -> FolderConfig:
        for folder in ("images", "masks"):
            (tmp_path / folder).mkdir(exist_ok=True)
        for stem, mask in masks.items():
            # What is object is bright, so that an image shows where its mask should be.
            image = np.where(mask[..., None] > 0, 200, 30).repeat(3, axis=2).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / "images" / f"{stem}.png")
            Image.fromarray(mask).save(tmp_path / "masks" / f"{stem}.png")
        return FolderConfig(format="folder", images="images", masks="masks", mask_mode=mode, **options)

    return write


@pytest.fixture
def two_squares() -> np.ndarray:
    """``(40, 60)`` uint8: two squares of id 1 and 2, of 100 and 225 pixels."""
    mask = np.zeros((40, 60), np.uint8)
    mask[5:15, 8:18] = 1
    mask[20:35, 40:55] = 2
    return mask


class MemorySource:
    """Samples held in memory; a DataError among them is raised when its index is read."""

    def __init__(self, items: Sequence[Sample | DataError]) -> None:
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        item = self._items[index]
        if isinstance(item, DataError):
            raise item
        return item

    def describe(self, index: int) -> str:
        return f"item {index}"


def bright_objects(label_map: np.ndarray) -> Sample:
    """A sample whose objects are bright on dark, so that the image itself shows where the masks belong."""
    image = np.where(label_map[..., None] > 0, 220, 20).repeat(3, axis=2).astype(np.uint8)
    return Sample("memory", image, LabelMapMasks(label_map), "memory")


@pytest.fixture
def memory_source() -> type[MemorySource]:
    return MemorySource


@pytest.fixture
def bright_sample() -> Callable[[np.ndarray], Sample]:
    return bright_objects
