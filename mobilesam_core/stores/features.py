"""Features of images in a folder of ``.safetensors`` files.

Each file is complete by itself: its header holds the index of its entries and what made them. So any number of
processes may write to one folder, a killed one loses no more than what it had not yet written, and the index of the
store is the union of its files' headers, which cannot disagree with their contents. Different levels of an image may be
in different files.
"""

from __future__ import annotations

import json
import shutil
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from mobilesam_core.errors import DataError, OutputError, UsageError
from mobilesam_core.files import atomic_path, make_folder, remove_leftovers
from mobilesam_core.ops.layout import NECK, Layout
from mobilesam_core.stores.producer import Producer

_FORMAT = "mobilesam-features-2"
_FILES = "features*.safetensors"
_FILE_BYTES, _FILE_SECONDS = 2**26, 60.0  # a crash loses less than this


@dataclass(frozen=True)
class Level:
    """Where one level of an image's features is: its file, its tensor's name there, shape, order of axes, and the
    CRC-32 of its bytes."""

    file: Path
    tensor: str
    shape: tuple[int, int, int]
    layout: Layout
    crc32: int

    @property
    def bytes(self) -> int:
        return 2 * self.shape[0] * self.shape[1] * self.shape[2]

    def read(self) -> np.ndarray:
        """The float16 features, in their layout.

        Raises:
            DataError: the file cannot be read any more, or its contents have changed.
        """
        try:
            # Mapped anew each time: it costs next to nothing, and no file stays open in a process that is forked.
            with safetensors.safe_open(self.file, framework="np") as opened:
                features: np.ndarray = opened.get_tensor(self.tensor)
        except (OSError, safetensors.SafetensorError) as error:
            raise _broken(self.file, error) from error
        if features.shape != self.shape or zlib.crc32(features.data) != self.crc32:
            raise _broken(self.file, f"{self.tensor} has changed")
        return features


@dataclass(frozen=True)
class Entry:
    """What the index knows of one image.

    key: its name, for people. sha256: of the image file: features are found by it, whatever the file is called.
    original_size: ``(H, W)`` of the upright image. levels: by name.
    """

    key: str
    sha256: str
    original_size: tuple[int, int]
    levels: Mapping[str, Level]


class FeatureStore:
    """Reads the features of a folder.

    entries: by the sha256 of the image file. producer: what made them all.

    Raises:
        UsageError: the folder holds no features.
        DataError: one of its files is broken, or they were made by different encoders.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        producers: dict[Producer, Path] = {}
        for file in store_files(folder):
            producer, entries = read_index(file)
            producers.setdefault(producer, file)
            for entry in entries:
                known = self.entries.get(entry.sha256, entry)
                self.entries[entry.sha256] = replace(known, levels={**known.levels, **entry.levels})
        if len(producers) > 1:
            first, second = list(producers.values())[:2]
            raise DataError(
                f"{first} and {second.name} were made by different encoders.",
                "Keep each one's features in its own folder.",
            )
        (self.producer,) = producers

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self.entries

    def read(self, sha256: str, level: str = NECK) -> np.ndarray:
        """The float16 features of an image, in their stored layout.

        Raises:
            KeyError: there is no such image or level.
            DataError: the file that holds it cannot be read any more, or its contents have changed.
        """
        return self.entries[sha256].levels[level].read()


class FeatureWriter:
    """Adds features to a folder, a file of them at a time; leaving the context writes what is left.

    Args:
        part: sets the files of this process apart from those of others that write to the folder at the same time.
        file_bytes: about the size of a file.

    Raises:
        UsageError: the folder holds features of another producer.
        DataError: it holds a broken file.
        OutputError: it is a file, or cannot be written to.
    """

    def __init__(self, folder: Path, producer: Producer, part: str = "", file_bytes: int = _FILE_BYTES) -> None:
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file, not a folder.", "Choose another folder with --out.")
        make_folder(folder)
        self._folder, self._producer, self._part, self._file_bytes = folder, producer, part, file_bytes
        self._held: set[tuple[str, str]] = set()
        self._pending: list[dict[str, Any]] = []
        self._tensors: dict[str, np.ndarray] = {}
        self._pending_bytes = 0
        self._since = time.monotonic()
        self.written_bytes = 0
        if any(folder.glob(_FILES)):
            store = FeatureStore(folder)
            if store.producer != producer:
                what = producer.difference(store.producer) or f"precision {store.producer.precision}"
                raise UsageError(f"{folder} holds features made by {what}.", "Choose another folder with --out.")
            self._held |= {(sha256, level) for sha256, entry in store.entries.items() for level in entry.levels}
        remove_leftovers(folder, [self._path(number).stem for number in range(self._next_number() + 1)])

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flush()

    def __len__(self) -> int:
        """Features of images in the folder, and about to be."""
        return len(self._held)

    def missing(self, sha256: str, levels: Sequence[str]) -> list[str]:
        """Which of the levels of this image file are neither there nor about to be."""
        return [level for level in levels if (sha256, level) not in self._held]

    def add(
        self,
        key: str,
        sha256: str,
        original_size: tuple[int, int],
        features: Mapping[str, tuple[np.ndarray, Layout]],
    ) -> None:
        """Add one image's features, ``(C, h, w)`` or ``(h, w, C)`` as their layout says; stored as float16.

        Levels that are there already stay as they are.

        Raises:
            DataError: a value is not finite, or too large for float16; nothing was added.
            OutputError: a file of the store cannot be written.
        """
        number = len(self._pending)
        tensors: dict[str, np.ndarray] = {}
        levels: dict[str, dict[str, Any]] = {}
        due = self.missing(sha256, list(features))
        if not due:
            return
        for name in due:
            values, layout = features[name]
            with np.errstate(over="ignore"):
                stored = np.ascontiguousarray(values, np.float16)
            if not np.isfinite(stored).all():
                raise DataError(f"The {name} features of {key} are not finite in float16.", "Check the weights.")
            tensors[f"{number}/{name}"] = stored
            levels[name] = {
                "tensor": f"{number}/{name}",
                "shape": list(stored.shape),
                "layout": layout,
                "crc32": zlib.crc32(stored.data),
            }
        self._tensors |= tensors
        self._pending_bytes += sum(each.nbytes for each in tensors.values())
        self._pending.append({"key": key, "sha256": sha256, "original_size": list(original_size), "levels": levels})
        self._held |= {(sha256, name) for name in due}
        if self._pending_bytes >= self._file_bytes or time.monotonic() - self._since >= _FILE_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was added since the last time.

        Raises:
            OutputError: the file cannot be written; what was added is lost, what was written before stays.
        """
        if not self._pending:
            return
        header = {
            "format": _FORMAT,
            "producer": json.dumps(asdict(self._producer)),
            "entries": json.dumps(self._pending),
        }
        data = safetensors.numpy.save(self._tensors, header)
        self._pending, self._tensors, self._pending_bytes, self._since = [], {}, 0, time.monotonic()
        with atomic_path(self._path(self._next_number())) as temporary:
            temporary.write_bytes(data)
        self.written_bytes += len(data)

    def _path(self, number: int) -> Path:
        return self._folder / f"features{self._part}-{number:05d}.safetensors"

    def _next_number(self) -> int:
        taken = [int(path.stem.rpartition("-")[2]) for path in self._folder.glob(f"features{self._part}-*.safetensors")]
        return max(taken, default=-1) + 1


def require_space(folder: Path, size: int) -> None:
    """Raise an OutputError if ``size`` bytes do not fit on the disk of ``folder``, which exists."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OutputError(
            f"The features need {size / 2**30:.1f} GiB; {folder} has {free / 2**30:.1f} GiB left.",
            "Free some space, choose another folder with --out, or store a part of the images (--shard).",
        )


def store_files(folder: Path) -> list[Path]:
    """The files of a store.

    Raises:
        UsageError: there are none.
    """
    files = sorted(folder.glob(_FILES))
    if not files:
        raise UsageError(
            f"{folder} holds no stored features.", "Make them with mobilesam embed --out, or mobilesam distill extract."
        )
    return files


def read_index(file: Path) -> tuple[Producer, list[Entry]]:
    """What a file of a store says of itself.

    Raises:
        DataError: it is broken, or no such file.
    """
    try:
        with safetensors.safe_open(file, framework="np") as opened:
            header = opened.metadata() or {}
        if header.get("format") != _FORMAT:
            raise DataError(f"{file} was written by something else, or another version.", "Move it out of the store.")
        producer = Producer(**json.loads(header["producer"]))
        entries = [
            Entry(
                key=each["key"],
                sha256=each["sha256"],
                original_size=(each["original_size"][0], each["original_size"][1]),
                levels={
                    name: Level(**{**at, "file": file, "shape": tuple(at["shape"])})
                    for name, at in each["levels"].items()
                },
            )
            for each in json.loads(header["entries"])
        ]
    except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _broken(file, error) from error
    return producer, entries


def _broken(file: Path, why: object) -> DataError:
    return DataError(
        f"{file} is broken or was cut short ({why}).", "Remove it; running the same command again makes what it held."
    )
