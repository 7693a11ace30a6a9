"""What is in a store of features, and whether it is what it should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobilesam_core.data.reading import read_image
from mobilesam_core.embedding.workflow import Extractor
from mobilesam_core.errors import DataError, UsageError
from mobilesam_core.files import file_sha256
from mobilesam_core.jobs.inputs import ImageFile
from mobilesam_core.progress import NullReporter, Reporter
from mobilesam_core.runtime.protocol import file_channels
from mobilesam_core.stores.features import FeatureStore, read_index, store_files
from mobilesam_core.stores.producer import Producer

TOLERANCE = 5e-3
"""Relative difference that float16 and another machine's arithmetic may make."""


@dataclass(frozen=True)
class LevelInfo:
    """images: how many have the level. shape, layout: of each. bytes: of all."""

    images: int
    shape: tuple[int, int, int]
    layout: str
    bytes: int


@dataclass(frozen=True)
class StoreInfo:
    """What a store holds, and what made it."""

    producer: Producer
    images: int
    files: int
    bytes: int
    levels: dict[str, LevelInfo]

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Verification:
    """What is wrong with a store; nothing, if all are empty.

    checked: features that were read. broken: files and why. missing: images that it lacks, or that have changed since.
    different: images whose features the teacher does not make, and the relative difference. compared: images that the
    teacher was asked for.
    """

    checked: int
    broken: dict[str, str]
    missing: tuple[str, ...]
    different: dict[str, float]
    compared: int

    @property
    def passed(self) -> bool:
        return not (self.broken or self.missing or self.different)

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {"passed": self.passed, **asdict(self)}


def describe_store(folder: Path) -> StoreInfo:
    """Read the index of a store.

    Raises:
        UsageError: the folder holds none. DataError: one of its files is broken.
    """
    store = FeatureStore(folder)
    files = store_files(folder)
    count: Counter[str] = Counter()
    levels: dict[str, LevelInfo] = {}
    for entry in store.entries.values():
        for name, level in entry.levels.items():
            count[name] += 1
            levels[name] = LevelInfo(count[name], level.shape, level.layout, count[name] * level.bytes)
    return StoreInfo(store.producer, len(store), len(files), sum(file.stat().st_size for file in files), levels)


def verify_store(
    folder: Path,
    images: Sequence[ImageFile] = (),
    extractor: Extractor | None = None,
    *,
    most: int = 8,
    reporter: Reporter | None = None,
) -> Verification:
    """Read all features of a store again, and compare it with what it was made from.

    Args:
        images: that it should have features of, unchanged.
        extractor: the teacher; its features of at most ``most`` of ``images`` are compared with the stored ones.

    Raises:
        UsageError: the folder holds no features, or those of another teacher.
    """
    reporter = reporter or NullReporter()
    broken, checked = _broken_files(folder, reporter)
    if broken:
        return Verification(checked, broken, (), {}, 0)
    store = FeatureStore(folder)
    levels = sorted({level for entry in store.entries.values() for level in entry.levels})
    wanted = levels if extractor is None else extractor.levels
    hashes = {image: file_sha256(image.path) for image in images}
    there = [
        image
        for image, sha256 in hashes.items()
        if sha256 in store and all(level in store.entries[sha256].levels for level in wanted)
    ]
    known = set(there)
    missing = tuple(str(image.path) for image in images if image not in known)
    different, compared = {}, 0
    if extractor is not None:
        if what := extractor.producer.difference(store.producer):
            raise UsageError(f"{folder} holds features made by {what}.", "Name the teacher they were made with.")
        channels = file_channels(extractor.channels, extractor.source)
        chosen = [there[i] for i in np.linspace(0, len(there) - 1, min(most, len(there))).round().astype(int)]
        with reporter.task("Comparing with the teacher", len(chosen), "images") as task:
            for image in chosen:
                error = _difference(store, hashes[image], extractor, read_image(image.path, channels))
                if error > TOLERANCE:
                    different[str(image.path)] = error
                compared += 1
                task.advance()
    return Verification(checked, broken, missing, different, compared)


def _broken_files(folder: Path, reporter: Reporter) -> tuple[dict[str, str], int]:
    """Files that cannot be read, and how many features could."""
    broken: dict[str, str] = {}
    checked = 0
    files = store_files(folder)
    with reporter.task("Reading the store", len(files), "files") as task:
        for file in files:
            try:
                _, entries = read_index(file)
                for entry in entries:
                    for level in entry.levels.values():
                        level.read()
                        checked += 1
            except DataError as error:
                broken[str(file)] = error.message
            task.advance()
    return broken, checked


def _difference(store: FeatureStore, sha256: str, extractor: Extractor, pixels: np.ndarray) -> float:
    """The largest of the levels' differences, each on the scale of the level."""
    worst = 0.0
    for level, (values, _) in extractor.extract(pixels).items():
        stored = store.read(sha256, level).astype(np.float32)
        scale = max(float(np.abs(stored).max()), 1e-6)
        worst = max(worst, float(np.abs(values.astype(np.float32) - stored).max()) / scale)
    return worst
