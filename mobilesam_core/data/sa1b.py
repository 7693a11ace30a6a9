"""SA-1B's layout: beside each image a JSON of the masks in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilesam_core.config.data import Sa1bConfig
from mobilesam_core.data.annotations import Read, flat_box, read_json_object, read_objects, read_segmentation
from mobilesam_core.data.faults import OnFault, read_both
from mobilesam_core.data.folder import list_labels, pair_by_stem, require_folder, require_images
from mobilesam_core.data.reading import read_image
from mobilesam_core.data.sample import Sample, path_key
from mobilesam_core.errors import DataError

_NOT_SA1B = "It must be as in SA-1B: an object with `image` and a list `annotations`."
_EMPTY_BYTES = 2000  # a file without annotations is small: larger ones need not be read to know


class Sa1bSource:
    """Pairs of an image and a JSON of the same stem, sorted by file name; labels are the annotations' ids.

    An image whose list of annotations is empty is left out; ``unannotated`` counts them. In a file of more than 2000
    bytes an empty list is found when the image is read, and is an error.

    Args:
        on_fault: told of each file that does not pair up; the pairs make the set. None: these are an error.

    Raises:
        DataError: a folder is missing, there is no image, images and JSON files do not pair up, or no object is
            annotated.
    """

    def __init__(self, config: Sa1bConfig, root: Path, channels: int = 3, on_fault: OnFault | None = None) -> None:
        self._folder = require_folder(root / config.images, "images")
        self._channels = channels
        annotations = config.annotations or config.images
        folder = require_folder(root / annotations, "annotations")
        files = list_labels(folder, ".json")
        images = require_images(self._folder)
        pairs = pair_by_stem(images, files, folder, [path.stem for path in files], on_fault, "JSON file")
        self._pairs = [pair for pair in pairs if not _is_empty(pair[1])]
        self.unannotated = len(pairs) - len(self._pairs)
        if not self._pairs:
            raise DataError(
                f"The JSON files of {folder} annotate no object.", "Check `annotations` of the data set.", "set"
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def describe(self, index: int) -> str:
        return str(self._pairs[index][0])

    def __getitem__(self, index: int) -> Sample:
        path, file = self._pairs[index]
        annotations, image = read_both(lambda: _read_some(file), lambda: read_image(path, self._channels))
        shape = (image.shape[0], image.shape[1])
        entries = [(f"annotations[{place}]", annotation) for place, annotation in enumerate(annotations)]
        masks, remarks = read_objects(entries, lambda each: _read(each, shape), shape, str(file))
        return Sample(path_key(path, self._folder), image, masks, str(path), remarks)


def _read_annotations(file: Path) -> list[Any]:
    content = read_json_object(file, "SA-1B", _NOT_SA1B)
    annotations = content.get("annotations")
    if not isinstance(annotations, list):
        state = "is not a list" if "annotations" in content else "is missing"
        raise DataError(f"{file} is not SA-1B: `annotations` {state}.", _NOT_SA1B)
    return annotations


def _read_some(file: Path) -> list[Any]:
    """The annotations, at least one."""
    annotations = _read_annotations(file)
    if not annotations:  # and yet too large to have been found so before
        raise DataError(f"{file} annotates no object.", "Remove it with its image, or annotate the object.", "empty")
    return annotations


def _is_empty(file: Path) -> bool:
    """Whether a file has no annotation; one that is broken has, so that reading it says what is wrong."""
    try:
        return file.stat().st_size <= _EMPTY_BYTES and not _read_annotations(file)
    except (DataError, OSError):
        return False


def _read(annotation: Any, shape: tuple[int, int]) -> Read:
    if not isinstance(annotation, Mapping):
        raise ValueError("is no object")
    number = annotation.get("id")
    if type(number) is not int or not 0 <= number < 2**63:
        raise ValueError(f"has the id {number!r}, which is no whole number from 0")
    return Read(read_segmentation(annotation.get("segmentation"), shape), number, flat_box(annotation))
