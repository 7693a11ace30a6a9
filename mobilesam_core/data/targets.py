"""The formats that data sets are converted to: each written below a folder that is its own."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from mobilesam_core.config.data import (
    CocoConfig,
    FileSetConfig,
    FolderConfig,
    LabelmeConfig,
    Sa1bConfig,
    YoloConfig,
)
from mobilesam_core.data.yolo import CLASS_NAMES
from mobilesam_core.errors import DataError
from mobilesam_core.ops.masks import InstanceMasks
from mobilesam_core.ops.polygons import mask_to_polygon, mask_to_polygons
from mobilesam_core.ops.rle import encode_rle

TargetName = Literal["coco", "sa1b", "yolo", "labelme", "per_instance", "instances"]

IMAGES = Path("images")
WRITTEN = ("images", "masks", "labels", "annotations.json")
"""All that any of the formats writes into its folder."""
_LAST_CLASS = 65535  # of 16-bit masks; more lines would make no list of names


class Target(ABC):
    """Writes what belongs to the images, which lie in ``folder/images``.

    categories: names by category; those that are not named are called ``class_7``.
    numbered: whether categories are numbers of classes from 0 already. If not, ``categories`` has all of them.
    lossy: write what the format can hold of masks that it cannot hold whole.
    """

    def __init__(self, folder: Path, categories: Mapping[int, str], numbered: bool, lossy: bool) -> None:
        self.folder = folder
        self.categories = dict(categories)
        self.numbered = numbered
        self.lossy = lossy
        self.lost_objects = 0
        self.lost_pixels = 0
        (folder / IMAGES).mkdir()

    @abstractmethod
    def config(self) -> FileSetConfig:
        """The config that reads the set, whose root is ``folder``."""

    @abstractmethod
    def add(self, image: str, masks: InstanceMasks, categories: Sequence[int]) -> None:
        """Write the masks of the image file ``image``, one category each.

        Raises:
            DataError: the format cannot hold them; nothing of them is written.
        """

    def finish(self) -> tuple[str, ...]:
        """Write what there is for the whole set; the names of the categories that it tells apart."""
        return ()

    def _name(self, category: int) -> str:
        return self.categories.setdefault(category, f"class_{category}")

    def _names(self) -> tuple[str, ...]:
        return tuple(name for _, name in sorted(self.categories.items()))


class CocoTarget(Target):
    """``annotations.json``, with compressed RLE."""

    def __init__(self, folder: Path, categories: Mapping[int, str], numbered: bool, lossy: bool) -> None:
        super().__init__(folder, categories, numbered, lossy)
        self._images: list[dict[str, Any]] = []
        self._count = 0
        self._file = folder / "annotations.json"
        self._write('{"annotations": [')

    def config(self) -> CocoConfig:
        return CocoConfig(format="coco", images=IMAGES, annotations=Path("annotations.json"))

    def add(self, image: str, masks: InstanceMasks, categories: Sequence[int]) -> None:
        number = len(self._images) + 1
        self._images.append({"id": number, "file_name": image, "height": masks.shape[0], "width": masks.shape[1]})
        lines = []
        for index, category in enumerate(categories):
            self._name(category)
            self._count += 1
            ids = {"id": self._count, "image_id": number, "category_id": category, "iscrowd": 0}
            lines.append(",\n" * (self._count > 1) + json.dumps(ids | _rle_entry(masks, index)))
        self._write("".join(lines))  # at once: the annotations of a large set need not fit into memory

    def finish(self) -> tuple[str, ...]:
        listed = [{"id": number, "name": name} for number, name in sorted(self.categories.items())]
        self._write(f'],\n"images": {json.dumps(self._images)},\n"categories": {json.dumps(listed)}}}\n')
        return self._names()

    def _write(self, text: str) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            file.write(text)


class Sa1bTarget(Target):
    """``images/<stem>.json``, with compressed RLE; objects are numbered from 1."""

    def __init__(self, folder: Path, categories: Mapping[int, str], numbered: bool, lossy: bool) -> None:
        super().__init__(folder, categories, numbered, lossy)
        self._count = 0

    def config(self) -> Sa1bConfig:
        return Sa1bConfig(format="sa1b", images=IMAGES)

    def add(self, image: str, masks: InstanceMasks, categories: Sequence[int]) -> None:
        self._count += 1
        facts = {"image_id": self._count, "file_name": image, "height": masks.shape[0], "width": masks.shape[1]}
        annotations = [{"id": index + 1} | _rle_entry(masks, index) for index in range(len(masks))]
        document = {"image": facts, "annotations": annotations}
        (self.folder / IMAGES / image).with_suffix(".json").write_text(json.dumps(document) + "\n", "utf-8")


class YoloTarget(Target):
    """``labels/<stem>.txt`` and ``labels/classes.txt``, which names every number up to the last.

    Numbers of classes stay; other categories count from 0 in their order.
    """

    def __init__(self, folder: Path, categories: Mapping[int, str], numbered: bool, lossy: bool) -> None:
        super().__init__(folder, categories, numbered, lossy)
        self._numbers = {category: category if numbered else place for place, category in enumerate(sorted(categories))}
        self._labels = folder / "labels"
        self._labels.mkdir()

    def config(self) -> YoloConfig:
        return YoloConfig(format="yolo", images=IMAGES, labels=Path("labels"))

    def add(self, image: str, masks: InstanceMasks, categories: Sequence[int]) -> None:
        height, width = masks.shape
        lines = []
        for index, category in enumerate(categories):
            number = self._numbers.setdefault(category, category)
            if not 0 <= number <= _LAST_CLASS:
                raise DataError(
                    f"{image}: an object is of class {number}; classes.txt names those from 0 to {_LAST_CLASS}."
                )
            points = np.reshape(mask_to_polygon(masks.dense([index])[0]), (-1, 2)) / (width, height)
            lines.append(" ".join([str(number), *(f"{share:.8g}" for share in points.ravel())]) + "\n")
        (self._labels / Path(image).with_suffix(".txt")).write_text("".join(lines), "utf-8")

    def finish(self) -> tuple[str, ...]:
        named = {number: " ".join(self._name(category).split()) for category, number in self._numbers.items()}
        names = tuple(named.get(number) or f"class_{number}" for number in range(max(named, default=-1) + 1))
        (self._labels / CLASS_NAMES).write_text("".join(f"{name}\n" for name in names), "utf-8")
        return names


class LabelmeTarget(Target):
    """``images/<stem>.json``: a polygon for each part of an object, which share a ``group_id``."""

    def config(self) -> LabelmeConfig:
        return LabelmeConfig(format="labelme", annotations=IMAGES)

    def add(self, image: str, masks: InstanceMasks, categories: Sequence[int]) -> None:
        shapes: list[dict[str, Any]] = []
        for index, category in enumerate(categories):
            polygons = mask_to_polygons(masks.dense([index])[0])
            group = index + 1 if len(polygons) > 1 else None
            shapes += [
                {
                    "label": self._name(category),
                    "points": np.reshape(polygon, (-1, 2)).tolist(),
                    "group_id": group,
                    "shape_type": "polygon",
                    "flags": {},
                }
                for polygon in polygons
            ]
        document: dict[str, Any] = {
            "version": "5.0.0",
            "flags": {},
            "shapes": shapes,
            "imagePath": image,
            "imageData": None,
            "imageHeight": masks.shape[0],
            "imageWidth": masks.shape[1],
        }
        (self.folder / IMAGES / image).with_suffix(".json").write_text(json.dumps(document) + "\n", "utf-8")

    def finish(self) -> tuple[str, ...]:
        return self._names()


class PerInstanceTarget(Target):
    """``masks/<stem>/0001.png`` …, each one object of 0 and 255."""

    def config(self) -> FolderConfig:
        return FolderConfig(format="folder", images=IMAGES, masks=Path("masks"), mask_mode="per_instance")

    def add(self, image: str, masks: InstanceMasks, categories: Sequence[int]) -> None:
        folder = self.folder / "masks" / Path(image).stem
        folder.mkdir(parents=True)
        digits = max(4, len(str(len(masks))))  # so that they come in order
        for index in range(len(masks)):
            pixels = masks.dense([index])[0].astype(np.uint8) * 255
            Image.fromarray(pixels).save(folder / f"{index + 1:0{digits}d}.png")


class InstancesTarget(Target):
    """``masks/<stem>.png``: 16-bit ids from 1; with ``lossy``, smaller objects lie on larger ones."""

    def __init__(self, folder: Path, categories: Mapping[int, str], numbered: bool, lossy: bool) -> None:
        super().__init__(folder, categories, numbered, lossy)
        (folder / "masks").mkdir()

    def config(self) -> FolderConfig:
        return FolderConfig(format="folder", images=IMAGES, masks=Path("masks"), mask_mode="instances")

    def add(self, image: str, masks: InstanceMasks, categories: Sequence[int]) -> None:
        if len(masks) > np.iinfo(np.uint16).max:
            raise DataError(f"{image} has {len(masks)} objects, more than there are 16-bit ids.")
        labels = np.zeros(masks.shape, np.uint16)
        lost = 0
        for index in np.argsort(-masks.areas, kind="stable"):
            mask = masks.dense([index])[0]
            below = labels[mask]
            if below.any() and not self.lossy:
                other = int(below[below > 0][0])
                shared = int((below == other).sum())
                first, second = sorted((other, int(index) + 1))
                raise DataError(f"{image}: objects {first} and {second} overlap, in {shared} pixels.")
            lost += int(np.count_nonzero(below))
            labels[mask] = index + 1
        self.lost_pixels += lost
        self.lost_objects += len(masks) - len(np.setdiff1d(labels, 0))
        Image.fromarray(labels).save(self.folder / "masks" / Path(image).with_suffix(".png"))


TARGETS: Mapping[TargetName, type[Target]] = {
    "coco": CocoTarget,
    "sa1b": Sa1bTarget,
    "yolo": YoloTarget,
    "labelme": LabelmeTarget,
    "per_instance": PerInstanceTarget,
    "instances": InstancesTarget,
}


def _rle_entry(masks: InstanceMasks, index: int) -> dict[str, Any]:
    """Box as COCO has it: ``[x, y, width, height]``."""
    x1, y1, x2, y2 = (int(side) for side in masks.boxes[index])
    return {
        "segmentation": encode_rle(masks.dense([index])[0]),
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": int(masks.areas[index]),
    }
