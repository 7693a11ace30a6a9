"""``mobilesam data convert``: a data set of any format, written as another."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from PIL import Image

from mobilesam_core.config.data import FileSetConfig, SetConfig
from mobilesam_core.data.build import build_source, class_names, count_unannotated
from mobilesam_core.data.reading import IMAGE_SUFFIXES
from mobilesam_core.data.sample import Sample
from mobilesam_core.data.targets import IMAGES, TARGETS, TargetName
from mobilesam_core.data.yolo import CLASS_NAMES
from mobilesam_core.errors import DataError, UsageError
from mobilesam_core.files import atomic_folder, output_error
from mobilesam_core.progress import NullReporter, Reporter

_LISTED = 20  # failures in one message
_OBJECT = {1: "object"}


@dataclass(frozen=True)
class Conversion:
    """What was written, and what of the source it does not hold.

    categories: names of classes, by their number in the source; none if the format holds no classes.
    unannotated: images of the source without objects, which are left out.
    lost_objects, lost_pixels: hidden under others, with ``lossy``.
    """

    folder: Path
    config: FileSetConfig
    images: int
    objects: int
    categories: tuple[str, ...]
    unannotated: int
    lost_objects: int
    lost_pixels: int

    def yaml(self, name: str) -> str:
        """The ``data:`` section that trains (``train``) or validates (``val``) on it."""
        tree = {"data": {"root": str(self.folder), name: self.config.model_dump(mode="json", exclude_defaults=True)}}
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=None)

    def to_json(self) -> dict[str, Any]:
        """Plain types for JSON."""
        return {
            "folder": str(self.folder),
            "set": self.config.model_dump(mode="json", exclude_defaults=True),
            "images": self.images,
            "objects": self.objects,
            "categories": list(self.categories),
            "unannotated": self.unannotated,
            "lost_objects": self.lost_objects,
            "lost_pixels": self.lost_pixels,
        }


def convert(
    config: SetConfig,
    root: Path,
    target: TargetName,
    out: Path,
    *,
    lossy: bool = False,
    reporter: Reporter | None = None,
) -> Conversion:
    """Write the set ``config`` (its paths are relative to ``root``) as ``target`` into the new folder ``out``.

    Masks are kept to the pixel. Image files are copied byte for byte; drawn images become PNGs. ``out`` appears once
    all of it is written.

    lossy: where objects overlap and ``target`` cannot hold that (``instances``), let smaller ones hide larger ones.

    Raises:
        UsageError: ``out`` exists and is not empty.
        DataError: the set cannot be read, or the target cannot hold it; every bad image is named.
        OutputError: a file cannot be written.
    """
    reporter = reporter or NullReporter()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder.", "Choose another folder with --out.")
    source = build_source(config, root)
    if unannotated := count_unannotated(source) or 0:
        reporter.info(f"{unannotated} images without objects are left out.")
    categories = class_names(config, source)
    names = {Path(CLASS_NAMES).stem}  # of YOLO's labels
    seen: set[int] = set()
    problems = []
    objects = 0
    with atomic_folder(out) as folder:
        writer = TARGETS[target](folder, _OBJECT if categories is None else categories, lossy)
        with reporter.task(f"Writing {target}", len(source), "images") as task:
            for index in range(len(source)):
                try:
                    sample = source[index]
                    labels = [1] * len(sample.masks) if categories is None else sample.masks.labels.tolist()
                    name = _free_name(sample.key, names)
                    file_name = name + _suffix(sample)
                    writer.add(file_name, sample.masks, labels)
                    _write_image(sample, folder / IMAGES / file_name)
                except DataError as error:
                    problems.append(error.message)
                    continue
                except OSError as error:
                    raise output_error(out, error) from error
                names.add(name.casefold())
                seen.update(labels)
                objects += len(sample.masks)
                task.advance()
        if problems:
            raise _not_converted(problems, len(source), target)
        kept = writer.finish()
    if len(seen) > 1 and not kept:
        reporter.warning(f"{target} holds no classes: which of {len(seen)} an object is, is not kept.")
    if writer.lost_pixels:
        reporter.warning(
            f"{writer.lost_pixels} pixels of objects under smaller ones are not kept, among them "
            f"{writer.lost_objects} whole objects."
        )
    return Conversion(
        out,
        writer.config(),
        len(source),
        objects - writer.lost_objects,
        kept,
        unannotated,
        writer.lost_objects,
        writer.lost_pixels,
    )


def _free_name(key: str, taken: Collection[str]) -> str:
    """A stem for the image ``key``: its path in one word, numbered where another image has that name already."""
    parts = [part.strip("/\\") for part in PurePosixPath(key).with_suffix("").parts]
    name = "-".join(part for part in parts if part.strip(".")).lstrip(".") or "image"
    free, number = name, 2
    while free.casefold() in taken:
        free, number = f"{name}-{number}", number + 1
    return free


def _suffix(sample: Sample) -> str:
    suffix = Path(sample.source).suffix
    return suffix if suffix.lower() in IMAGE_SUFFIXES and Path(sample.source).is_file() else ".png"


def _write_image(sample: Sample, path: Path) -> None:
    if path.suffix == Path(sample.source).suffix:
        shutil.copyfile(sample.source, path)
    else:  # drawn, or a file that its name does not call an image
        Image.fromarray(sample.image).save(path)


def _not_converted(problems: list[str], images: int, target: TargetName) -> DataError:
    listed = "\n  ".join(problems[:_LISTED])
    more = f"\n  … and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
    remedy = "Repair or remove them."
    if target == "instances":
        remedy += " Overlaps: choose a format that holds them, such as per_instance or coco, or lose them with --lossy."
    return DataError(
        f"{len(problems)} of {images} images cannot be converted to {target}; nothing was written:\n  {listed}{more}",
        remedy,
    )
