"""COCO instance annotations: polygons, compressed and plain RLE, crowd regions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobilesam_core.config.data import CocoConfig
from mobilesam_core.data.annotations import (
    Read,
    flat_box,
    is_int64,
    is_text,
    read_json_object,
    read_objects,
    read_segmentation,
)
from mobilesam_core.data.faults import Faults, OnFault
from mobilesam_core.data.folder import require_folder
from mobilesam_core.data.reading import read_oriented, upright
from mobilesam_core.data.sample import Sample
from mobilesam_core.errors import DataError
from mobilesam_core.ops.masks import RleMasks
from mobilesam_core.ops.rle import encode_rle

Kinds = type | tuple[type, ...]

_NOT_COCO = "It must be COCO instance JSON: an object with the lists `images` and `annotations`."
_IMAGE_KEYS: Mapping[str, Kinds] = {"id": (int, str), "file_name": str, "height": int, "width": int}
_ANNOTATION_KEYS: Mapping[str, Kinds] = {"id": (int, str), "image_id": (int, str), "category_id": int}


class CocoSource:
    """The images of a COCO file that have objects, in the file's order; labels are its category ids.

    Images without annotations are normal in COCO and are left out; ``unannotated`` counts them. ``categories`` names
    the ids; ``category_ids`` are those that the file lists and those that objects have besides, sorted, or none if it
    lists none. What is wrong with the file as a whole raises here; with one image or annotation, when that is read.

    Args:
        on_fault: told of each entry of the file that cannot be used; the others make the set. None: these are an
            error.

    Raises:
        DataError: a folder or the JSON is missing or unusable, an entry lacks what COCO demands, an
            annotation refers to no image, or none of the image files is there.
    """

    def __init__(self, config: CocoConfig, root: Path, channels: int = 3, on_fault: OnFault | None = None) -> None:
        self._folder = require_folder(root / config.images, "images")
        self._file = root / config.annotations
        self._channels = channels
        content = _read_coco(self._file)
        listed_categories = _categories(content.get("categories"))
        self.categories = {number: name for number, name in listed_categories.items() if is_text(name)}
        faults = Faults()
        images = _index_images(content["images"], self._file, faults)
        listed = {each["id"] for each in content["images"] if isinstance(each, dict) and _is_id(each.get("id"))}
        annotations: dict[Any, list[Mapping[str, Any]]] = {image_id: [] for image_id in images}
        for place, annotation in enumerate(content["annotations"]):
            with faults.catch():
                _require_entry(annotation, _ANNOTATION_KEYS, f"annotations[{place}]", self._file)
                if not is_int64(annotation["category_id"]):
                    raise DataError(
                        f"{self._file}: `category_id` of annotations[{place}] does not fit into 64 bits.",
                        _NOT_COCO,
                        "annotation",
                    )
                image = annotation["image_id"]
                if image not in listed:
                    raise DataError(
                        f"{self._file}: annotation {annotation['id']} refers to image {image!r}, which is not listed.",
                        "Add the image to its `images` list or remove the annotation.",
                        "unpaired",
                    )
                # Of an image whose own entry is at fault nothing more need be said.
                if image in annotations and (config.crowd == "keep" or not annotation.get("iscrowd")):
                    annotations[image].append(annotation)
        faults.settle(on_fault)
        self._records = [(images[key], found) for key, found in annotations.items() if found]
        self.unannotated = len(images) - len(self._records)
        used = {annotation["category_id"] for _, found in self._records for annotation in found}
        self.category_ids = tuple(sorted(used | listed_categories.keys())) if listed_categories else ()
        if not self._records:
            raise DataError(f"{self._file} annotates no object.", "Check `annotations` of the data set.", "set")
        if not any((self._folder / image["file_name"]).exists() for image, _ in self._records):
            raise DataError(
                f"None of the {len(self._records)} images that {self._file} names is in {self._folder}.",
                "Check `images` of the data set and `data.root`.",
                "set",
            )

    def __len__(self) -> int:
        return len(self._records)

    def describe(self, index: int) -> str:
        return str(self._folder / self._records[index][0]["file_name"])

    def __getitem__(self, index: int) -> Sample:
        record, annotations = self._records[index]
        path = self._folder / record["file_name"]
        stated = (record["height"], record["width"])
        where = f"{self._file}, image {record['file_name']}"
        faults = Faults()
        with faults.catch():
            image, orientation = read_oriented(path, self._channels)
            shape = (image.shape[0], image.shape[1])
            # Some tools annotate the pixels as stored, before the rotation that EXIF asks for.
            turned = stated != shape and orientation in (5, 6, 7, 8) and stated == shape[::-1]
            if stated != shape and not turned:
                raise DataError(
                    f"{path} is {shape[1]} x {shape[0]} pixels, {self._file} says {stated[1]} x {stated[0]}.",
                    "The annotations belong to another version of the image.",
                    "size",
                )
        entries = [(f"annotation {annotation['id']}", annotation) for annotation in annotations]
        with faults.catch():
            masks, remarks = read_objects(entries, lambda each: _read(each, stated), stated, where)
        faults.settle()  # from here on both are there
        if turned:
            rles = [encode_rle(upright(masks.dense([number])[0], orientation)) for number in range(len(masks))]
            masks = RleMasks(rles, shape, masks.labels)
        return Sample(record["file_name"], image, masks, str(path), remarks)


def _read(annotation: Mapping[str, Any], shape: tuple[int, int]) -> Read:
    rle = read_segmentation(annotation.get("segmentation"), shape)
    return Read(rle, annotation["category_id"], flat_box(annotation))


def _read_coco(path: Path) -> Mapping[str, Any]:
    content = read_json_object(path, "COCO", _NOT_COCO, "set")
    for key in ("images", "annotations"):
        if not isinstance(content.get(key), list):
            state = "is not a list" if key in content else "is missing"
            raise DataError(f"{path} is not COCO: `{key}` {state}.", _NOT_COCO, "set")
    return content


def _categories(categories: Any) -> dict[int, Any]:
    """What should be a name, by category id; no mask needs `categories`, so what is malformed there is left out."""
    listed = categories if isinstance(categories, list) else []
    found = [(each.get("id"), each.get("name")) for each in listed if isinstance(each, dict)]
    return {number: name for number, name in found if is_int64(number)}


def _index_images(images: list[Any], path: Path, faults: Faults) -> dict[Any, Mapping[str, Any]]:
    index: dict[Any, Mapping[str, Any]] = {}
    for place, image in enumerate(images):
        with faults.catch():
            _require_entry(image, _IMAGE_KEYS, f"images[{place}]", path)
            if image["id"] in index:
                raise DataError(
                    f"{path}: image id {image['id']!r} occurs twice.", "Give each image its own id.", "annotation"
                )
            index[image["id"]] = image
    return index


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str))


def _require_entry(entry: Any, keys: Mapping[str, Kinds], place: str, path: Path) -> None:
    if not isinstance(entry, dict):
        raise DataError(f"{path} is not COCO: {place} is no object.", _NOT_COCO, "annotation")
    for key, kind in keys.items():
        if key not in entry:
            raise DataError(f"{path} is not COCO: {place} has no `{key}`.", _NOT_COCO, "annotation")
        if not isinstance(entry[key], kind):
            raise DataError(f"{path} is not COCO: `{key}` of {place} is {entry[key]!r}.", _NOT_COCO, "annotation")
