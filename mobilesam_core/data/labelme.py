"""labelme: a JSON of shapes for each image."""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from mobilesam_core.config.data import LabelmeConfig
from mobilesam_core.data.annotations import Read, is_text, read_json_object, read_objects
from mobilesam_core.data.faults import Faults, OnFault, read_both
from mobilesam_core.data.folder import list_labels, require_folder
from mobilesam_core.data.reading import read_image
from mobilesam_core.data.sample import Sample
from mobilesam_core.errors import DataError
from mobilesam_core.ops.rle import decode_rle, encode_rle, polygons_to_rle

_NOT_LABELME = "It must be as labelme writes it: an object with `imagePath` and a list `shapes`."
Shapes = list[tuple[int, Mapping[str, Any]]]
"""The shapes of an object, with their places in the file."""


class LabelmeSource:
    """The images that have shapes, sorted by the names of their JSON files; labels count the texts, sorted, from 1.

    Shapes of one ``label`` and ``group_id`` (that is not null) are one object. A JSON without shapes is left out;
    ``unannotated`` counts them. ``categories``: the texts by label. ``imageData`` is not looked at.

    Args:
        on_fault: told of each JSON that is not labelme's; the others make the set. None: these are an error.

    Raises:
        DataError: a folder is missing or without JSON files, one of them is not labelme's, or none has a shape.
    """

    def __init__(self, config: LabelmeConfig, root: Path, channels: int = 3, on_fault: OnFault | None = None) -> None:
        folder = require_folder(root / config.annotations, "annotations")
        images = None if config.images is None else require_folder(root / config.images, "images")
        self._channels = channels
        files = list_labels(folder, ".json")
        if not files:
            raise DataError(
                f"The folder {folder} holds no JSON file.",
                "Check `annotations` of the data set and `data.root`.",
                "set",
            )
        self._records: list[tuple[Path, Path]] = []
        self.unannotated = 0
        texts: set[str] = set()
        faults = Faults()
        for file in files:
            with faults.catch():
                content = _read_labelme(file)
                # Windows' paths may have either kind of slash, and others read as such too.
                stored = PureWindowsPath(content["imagePath"])
                image = images / stored.name if images is not None else file.parent / stored.as_posix()
                if content["shapes"]:
                    self._records.append((image, file))
                    texts |= {shape["label"] for shape in content["shapes"]}
                else:
                    self.unannotated += 1
        faults.settle(on_fault)
        if not self._records:
            raise DataError(f"The JSON files of {folder} hold no shape.", "Check `annotations` of the data set.", "set")
        self.categories = dict(enumerate(sorted(texts), 1))

    def __len__(self) -> int:
        return len(self._records)

    def describe(self, index: int) -> str:
        return str(self._records[index][0])

    def __getitem__(self, index: int) -> Sample:
        path, file = self._records[index]
        content, image = read_both(lambda: _read_labelme(file), lambda: read_image(path, self._channels))
        shape = (image.shape[0], image.shape[1])
        stated = (content.get("imageHeight") or shape[0], content.get("imageWidth") or shape[1])
        if stated != shape:
            raise DataError(
                f"{path} is {shape[1]} x {shape[0]} pixels, {file} says {stated[1]} x {stated[0]}.",
                "The shapes belong to another version of the image.",
                "size",
            )
        numbers = {text: number for number, text in self.categories.items()}
        objects: dict[Any, Shapes] = {}
        for place, each in enumerate(content["shapes"]):
            group = each.get("group_id")
            objects.setdefault(place if group is None else (each["label"], str(group)), []).append((place, each))

        def read(shapes: Shapes) -> Read:
            mask = np.zeros(shape, bool)
            for place, each in shapes:
                try:
                    mask |= _draw(each, shape)
                except ValueError as error:
                    raise ValueError(str(error) if len(shapes) == 1 else f"(shapes[{place}]) {error}") from None
            return Read(encode_rle(mask) if mask.any() else None, numbers[shapes[0][1]["label"]])

        entries = [(f"shapes[{found[0][0]}] ('{found[0][1]['label']}')", found) for found in objects.values()]
        masks, remarks = read_objects(entries, read, shape, str(file))
        return Sample(path.name, image, masks, str(path), remarks)


def _draw(shape: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """``(H, W)`` bool of one shape; a circle is the pixels whose centres lie in it."""
    kind = shape.get("shape_type") or "polygon"  # early versions knew nothing else
    if kind not in ("polygon", "rectangle", "circle"):
        raise ValueError(f"is of the type '{kind}'; of labelme's, polygon, rectangle and circle are read")
    points = _points(shape.get("points"))
    if kind == "polygon":
        return decode_rle(polygons_to_rle([[value for point in points for value in point]], *size))
    if len(points) != 2:
        raise ValueError(f"is a {kind} of {len(points)} points, not of 2")
    (x1, y1), (x2, y2) = points
    if kind == "rectangle":
        return decode_rle(polygons_to_rle([[x1, y1, x2, y1, x2, y2, x1, y2]], *size))
    rows, columns = np.ogrid[: size[0], : size[1]]
    inside: np.ndarray = np.hypot(columns + 0.5 - x1, rows + 0.5 - y1) <= math.hypot(x2 - x1, y2 - y1)
    return inside


def _points(points: Any) -> Sequence[tuple[float, float]]:
    if not isinstance(points, list) or not points:
        raise ValueError("has no points")
    for point in points:
        if not (isinstance(point, list) and len(point) == 2 and all(_is_finite(value) for value in point)):
            raise ValueError(f"has the point {reprlib.repr(point)}, which is not [x, y]")
    return [(float(x), float(y)) for x, y in points]


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max  # a whole number may be any


def _read_labelme(file: Path) -> Mapping[str, Any]:
    content = read_json_object(file, "labelme", _NOT_LABELME)
    if not isinstance(content.get("shapes"), list):
        state = "is not a list" if "shapes" in content else "is missing"
        raise DataError(f"{file} is not labelme: `shapes` {state}.", _NOT_LABELME)
    if not isinstance(content.get("imagePath"), str) or not content["imagePath"]:
        raise DataError(f"{file} is not labelme: `imagePath` names no image.", _NOT_LABELME)
    for key in ("imageHeight", "imageWidth"):
        if not isinstance(content.get(key), int | float | None):
            raise DataError(f"{file} is not labelme: `{key}` is {content[key]!r}, which is no number.", _NOT_LABELME)
    unlabelled = [
        f"shapes[{place}] {problem}"
        for place, shape in enumerate(content["shapes"])
        if (problem := _label_problem(shape))
    ]
    if unlabelled:
        raise DataError(f"{file} is not labelme: {'; '.join(unlabelled)}.", _NOT_LABELME, "annotation")
    return content


def _label_problem(shape: Any) -> str:
    label = shape.get("label") if isinstance(shape, dict) else None
    if label is None:
        return "has no `label`"
    return "" if is_text(label) else f"has the label {label!r}, which is no text"
