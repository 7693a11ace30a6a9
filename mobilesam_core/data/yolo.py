"""YOLO segmentation: a text file of polygons for each image."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from pathlib import Path

import numpy as np

from mobilesam_core.config.data import YoloConfig
from mobilesam_core.data.annotations import Read, read_objects
from mobilesam_core.data.faults import Faults, OnFault, read_both
from mobilesam_core.data.folder import list_labels, pair_by_stem, require_folder, require_images
from mobilesam_core.data.reading import read_image
from mobilesam_core.data.sample import Sample, path_key
from mobilesam_core.errors import DataError
from mobilesam_core.ops.rle import polygons_to_rle, rle_areas

CLASS_NAMES = "classes.txt"
_BEGIN = 256  # bytes, in which all but a file of blank lines has a label
_ROUNDING = 1e-6  # by which a coordinate may exceed 1: some tools compute in float32


class YoloSource:
    """The images that have objects, sorted by file name; labels are the classes, which count from 0.

    An image whose file of labels is missing or blank is one without objects, as in YOLO, and is left out;
    ``unannotated`` counts them. ``categories``: the names in ``classes.txt``, by class. A polygon's inside is told
    by the even-odd rule.

    Args:
        on_fault: told of each file of labels without an image, of images of one stem, and of unusable names; the rest
            make the set. None: these are an error.

    Raises:
        DataError: a folder is missing, there is no image, a file of labels belongs to no image, or none has a label.
    """

    def __init__(self, config: YoloConfig, root: Path, channels: int = 3, on_fault: OnFault | None = None) -> None:
        self._folder = require_folder(root / config.images, "images")
        self._channels = channels
        folder = require_folder(root / config.labels, "labels")
        images = require_images(self._folder)
        stems = {path.stem for path in images}
        files = [path for path in list_labels(folder, ".txt") if not _is_blank(path)]
        classes = [path for path in files if path.name.lower() == CLASS_NAMES and path.stem not in stems]
        labelled = [path for path in files if path not in classes]
        names = [path.stem for path in labelled]
        wanted = [path for path in images if path.stem in set(names)]
        if not wanted:
            raise DataError(
                f"None of the {len(images)} images of {self._folder} has a label in {folder}.",
                "An image and its labels have the same file name up to the suffix: check `labels` of the data set.",
                "set",
            )
        self._pairs = pair_by_stem(wanted, labelled, folder, names, on_fault, "label file")
        self.unannotated = len(images) - len(wanted)
        self.categories: dict[int, str] = {}
        faults = Faults()
        for path in classes:
            with faults.catch():
                self.categories |= _class_names(path)
        faults.settle(on_fault)

    def __len__(self) -> int:
        return len(self._pairs)

    def describe(self, index: int) -> str:
        return str(self._pairs[index][0])

    def __getitem__(self, index: int) -> Sample:
        path, file = self._pairs[index]
        lines, image = read_both(lambda: _read_text(file).splitlines(), lambda: read_image(path, self._channels))
        shape = (image.shape[0], image.shape[1])
        entries = [(f"line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
        masks, remarks = read_objects(entries, lambda line: _read(line, shape), shape, str(file))
        return Sample(path_key(path, self._folder), image, masks, str(path), remarks)


def _read(line: str, shape: tuple[int, int]) -> Read:
    name, *texts = line.split()
    if not re.fullmatch(r"\d{1,9}", name, re.ASCII):
        raise ValueError(f"has the class '{name}', which is no whole number from 0")
    shares = np.array([_number(text) for text in texts])
    if len(shares) == 4:
        raise ValueError("has 4 coordinates: that is a box, or 2 points, and a polygon has at least 3")
    if len(shares) < 6 or len(shares) % 2:
        raise ValueError(f"has {len(shares)} coordinates; a polygon has an x and a y for each of at least 3 points")
    outside = ~((shares >= -_ROUNDING) & (shares <= 1 + _ROUNDING))  # NaN too
    if outside.any():
        raise ValueError(
            f"has the coordinate {texts[int(outside.argmax())]}; they are shares of width and height, from 0 to 1"
        )
    polygon = (shares.reshape(-1, 2) * shape[::-1]).ravel().tolist()
    rle = polygons_to_rle([polygon], *shape)
    return Read(rle if rle_areas([rle])[0] else None, int(name))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"has the coordinate '{text}', which is no number") from None


def _is_blank(path: Path) -> bool:
    """Whether a file has no line; one that cannot be read has, so that reading it says what is wrong."""
    try:
        with path.open("rb") as file:
            begin = file.read(_BEGIN).removeprefix(BOM_UTF8)
            return not begin.strip() and not file.read().strip()
    except OSError:
        return False


def _class_names(path: Path) -> dict[int, str]:
    lines = _read_text(path).splitlines()
    return {number: name.strip() for number, name in enumerate(lines) if name.strip()}


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not text: {error}.", "It must hold lines of a class and a polygon.") from error
