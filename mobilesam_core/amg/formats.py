"""What the masks of an image are written as."""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from PIL import Image

from mobilesam_core.amg.generator import FoundMask
from mobilesam_core.errors import DataError, OutputError
from mobilesam_core.files import atomic_path, make_folder, write_text
from mobilesam_core.jobs.inputs import ImageFile, Shard
from mobilesam_core.ops.drawing import write_png
from mobilesam_core.ops.rle import decode_rle

FormatName = Literal["png", "coco-rle", "sa1b", "coco", "labels"]

_METADATA = (
    "id", "area", "bbox_x0", "bbox_y0", "bbox_w", "bbox_h", "point_input_x", "point_input_y", "predicted_iou",
    "stability_score", "crop_box_x0", "crop_box_y0", "crop_box_w", "crop_box_h",
)  # fmt: skip


@dataclass(frozen=True)
class ImageMasks:
    """An image of ``height`` x ``width`` and the masks found in it, best-scored first."""

    image: ImageFile
    height: int
    width: int
    masks: tuple[FoundMask, ...]


class Format(ABC):
    """Writes below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def write(self, found: ImageMasks) -> None:
        """Write the results of one image, in place of those of an earlier run.

        Raises:
            OutputError: a file cannot be written.
            DataError: the format cannot hold these masks.
        """

    def finish(self, numbered: Sequence[tuple[int, ImageFile]], shard: Shard) -> Path | None:
        """Write what there is for the whole set, whose finished images come with their numbers (from 1); its path."""
        return None


class PngFormat(Format):
    """``<name>/0.png`` … (0 and 255) and ``<name>/metadata.csv``, as segment_anything's script lays them out."""

    def write(self, found: ImageMasks) -> None:
        folder = make_folder(self.folder / found.image.name)
        for number, each in enumerate(found.masks):
            write_png(folder / f"{number}.png", decode_rle(each.rle))
        number = len(found.masks)
        while (stale := folder / f"{number}.png").exists():  # of an earlier run that found more
            stale.unlink()
            number += 1
        with atomic_path(folder / "metadata.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_METADATA)
            writer.writerows(_row(number, each) for number, each in enumerate(found.masks))


class JsonFormat(Format):
    """``<name>.json``: a list of masks, or with ``sa1b`` the document of SA-1B."""

    def __init__(self, folder: Path, sa1b: bool = False) -> None:
        super().__init__(folder)
        self._sa1b = sa1b

    def write(self, found: ImageMasks) -> None:
        annotations = [mask_record(each) for each in found.masks]
        document: Any = annotations
        if self._sa1b:
            numbered = [{"id": number} | each for number, each in enumerate(annotations, 1)]
            document = {"image": {"image_id": found.image.name} | _image(found), "annotations": numbered}
        _write_json(self.folder / f"{found.image.name}.json", document)


class CocoFormat(Format):
    """``annotations.json`` for the whole set (``annotations_2-of-4.json`` for a share of it), in the format of COCO's
    instances with a ``score``; until then, and to go on from, each image's own in ``.parts/``.

    Images and annotations of all shares have ids of their own.
    """

    def write(self, found: ImageMasks) -> None:
        document = {"image": _image(found), "annotations": [mask_record(each) for each in found.masks]}
        _write_json(self._part(found.image), document)

    def finish(self, numbered: Sequence[tuple[int, ImageFile]], shard: Shard) -> Path:
        path = self.folder / f"annotations{shard.suffix()}.json"
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            # Piece by piece: the set may be larger than memory.
            file.write('{"categories": [{"id": 1, "name": "object"}],\n"images": [')
            for count, (number, image) in enumerate(numbered):
                file.write(",\n" * (count > 0) + json.dumps({"id": number} | self._read(image)["image"]))
            file.write('],\n"annotations": [')
            count = 0
            for number, image in numbered:
                for each in self._read(image)["annotations"]:
                    extra = {
                        "id": shard.number + shard.count * count,
                        "image_id": number,
                        "category_id": 1,
                        "iscrowd": 0,
                    }
                    file.write(",\n" * (count > 0) + json.dumps(extra | each | {"score": each["predicted_iou"]}))
                    count += 1
            file.write("]}\n")
        return path

    def _part(self, image: ImageFile) -> Path:
        return self.folder / ".parts" / f"{image.name}.json"

    def _read(self, image: ImageFile) -> dict[str, Any]:
        part: dict[str, Any] = json.loads(self._part(image).read_text("utf-8"))
        return part


class LabelsFormat(Format):
    """``<name>.png``: a 16-bit image of ids, 0 where there is no mask; smaller masks lie on larger ones."""

    def write(self, found: ImageMasks) -> None:
        labels = label_map(found.masks, found.height, found.width)
        with atomic_path(self.folder / f"{found.image.name}.png") as temporary:
            Image.fromarray(labels).save(temporary, format="PNG")


def build_format(name: FormatName, folder: Path) -> Format:
    """The format of this name, whose folder is made.

    Raises:
        OutputError: the folder is a file, or cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file, not a folder.", "Choose another folder with --out.")
    make_folder(folder)
    kinds: Mapping[FormatName, Format] = {
        "png": PngFormat(folder),
        "coco-rle": JsonFormat(folder),
        "sa1b": JsonFormat(folder, sa1b=True),
        "coco": CocoFormat(folder),
        "labels": LabelsFormat(folder),
    }
    return kinds[name]


def _write_json(path: Path, document: Any) -> None:
    write_text(path, json.dumps(document, allow_nan=False) + "\n")


def _image(found: ImageMasks) -> dict[str, Any]:
    file_name = PurePosixPath(found.image.name).parent / found.image.path.name
    return {"file_name": file_name.as_posix(), "width": found.width, "height": found.height}


def label_map(masks: Sequence[FoundMask], height: int, width: int) -> np.ndarray:
    """``(H, W)`` uint16 ids, 0 where there is no mask; smaller masks lie on larger ones.

    Raises:
        DataError: there are more masks than ids.
    """
    if len(masks) > np.iinfo(np.uint16).max:
        raise DataError(f"{len(masks)} masks are more than there are 16-bit ids.", "Use --max-masks.")
    labels = np.zeros((height, width), np.uint16)
    for number, each in sorted(enumerate(masks, 1), key=lambda pair: -pair[1].area):
        labels[decode_rle(each.rle)] = number
    return labels


def mask_record(found: FoundMask) -> dict[str, Any]:
    """What is written of a mask. Boxes as COCO has them, ``[x, y, width, height]`` with the last pixel inside."""
    x1, y1, x2, y2 = found.box
    left, top, right, bottom = found.crop.box
    return {
        "segmentation": found.rle,
        "bbox": [x1, y1, x2 - x1 + 1, y2 - y1 + 1],
        "area": found.area,
        "predicted_iou": round(found.predicted_iou, 6),
        "stability_score": round(found.stability_score, 6),
        "point_coords": [[round(coordinate, 3) for coordinate in found.point]],
        "crop_box": [left, top, right - left, bottom - top],
    }


def _row(number: int, found: FoundMask) -> tuple[Any, ...]:
    record = mask_record(found)
    scores = (record["predicted_iou"], record["stability_score"])
    return (number, record["area"], *record["bbox"], *record["point_coords"][0], *scores, *record["crop_box"])
