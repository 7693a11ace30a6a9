"""``mobilesam data convert``: a data set of any format, written as another."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from PIL import Image

from mobilesam_core.config.data import FileSetConfig, SetConfig
from mobilesam_core.data.annotations import NO_PIXEL
from mobilesam_core.data.build import build_source, class_names, count_unannotated
from mobilesam_core.data.coco import CocoSource
from mobilesam_core.data.labelme import LabelmeSource
from mobilesam_core.data.reading import IMAGE_SUFFIXES
from mobilesam_core.data.sample import Sample, SampleSource
from mobilesam_core.data.targets import IMAGES, TARGETS, WRITTEN, TargetName
from mobilesam_core.data.yolo import CLASS_NAMES
from mobilesam_core.errors import DataError, UsageError
from mobilesam_core.files import atomic_folder, output_error
from mobilesam_core.progress import NullReporter, Reporter

_LISTED = 20  # failures in one message
_SHOWN = 5  # objects without pixels
_OBJECT = {1: "object"}


@dataclass(frozen=True)
class Conversion:
    """What was written, and what of the source it does not hold.

    categories: names of classes, by number (of YOLO from 0, with those of gaps); none if the format holds no classes.
    unannotated: images of the source without objects, which are left out.
    lost_objects, lost_pixels: hidden under others, with ``lossy``.
    without_pixels: objects of the source that cover no pixel, which are left out.
    """

    folder: Path
    config: FileSetConfig
    images: int
    objects: int
    categories: tuple[str, ...]
    unannotated: int
    lost_objects: int
    lost_pixels: int
    without_pixels: int

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
            "without_pixels": self.without_pixels,
        }


def convert(
    config: SetConfig,
    root: Path,
    target: TargetName,
    out: Path,
    *,
    lossy: bool = False,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Conversion:
    """Write the set ``config`` (its paths are relative to ``root``) as ``target`` into the new folder ``out``.

    Masks are kept to the pixel. Image files are copied byte for byte; drawn images become PNGs. ``out`` appears once
    all of it is written.

    lossy: where objects overlap and ``target`` cannot hold that (``instances``), let smaller ones hide larger ones.
    overwrite: put it in the place of what an earlier run wrote to ``out``.

    Raises:
        UsageError: ``out`` exists and is not empty (with ``overwrite``: holds what no conversion writes), cannot be
            replaced, or lies in a folder of the set.
        DataError: the set cannot be read, or the target cannot hold it; every bad image is named.
        OutputError: a file cannot be written.
    """
    reporter = reporter or NullReporter()
    _require_free(out, config, root, overwrite)
    source = build_source(config, root)
    if unannotated := count_unannotated(source) or 0:
        reporter.info(f"{unannotated} images without objects are left out.")
    labelled = class_names(config, source) is not None
    names, numbered = _classes(config, source)
    if isinstance(source, LabelmeSource) and target in ("coco", "yolo"):
        reporter.info(
            "labelme has no class numbers: those written count the sorted names of this set, and hold for it alone."
        )
    taken = {Path(CLASS_NAMES).stem}  # of YOLO's labels
    seen: set[int] = set()
    problems: list[str] = []
    without_pixels: list[str] = []
    objects = 0
    with atomic_folder(out, overwrite) as folder, _writing(out):
        writer = TARGETS[target](folder, names, numbered, lossy)
        with reporter.task(f"Writing {target}", len(source), "images") as task:
            for index in range(len(source)):
                try:
                    sample = source[index]
                    labels = sample.masks.labels.tolist() if labelled else [1] * len(sample.masks)
                    name = _free_name(sample.key, taken)
                    file_name = name + _suffix(sample)
                    writer.add(file_name, sample.masks, labels)
                    _write_image(sample, folder / IMAGES / file_name)
                except DataError as error:
                    problems.append(error.message)
                    continue
                taken.add(name.casefold())
                seen.update(labels)
                objects += len(sample.masks)
                without_pixels += [remark for remark in sample.remarks if remark.endswith(f"{NO_PIXEL}.")]
                task.advance()
        if problems:
            raise _not_converted(problems, len(source), target)
        kept = writer.finish()
    if without_pixels:
        listed = "\n  ".join(without_pixels[:_SHOWN])
        more = f"\n  … and {len(without_pixels) - _SHOWN} more" if len(without_pixels) > _SHOWN else ""
        reporter.warning(f"{len(without_pixels)} objects without pixels are left out:\n  {listed}{more}")
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
        len(without_pixels),
    )


def _require_free(out: Path, config: SetConfig, root: Path, overwrite: bool) -> None:
    """A UsageError where ``out`` could not be put in its place at the end, or would change the set it is made from."""
    problem = ""
    with _writing(out):
        whole = out.resolve()
        if out.is_symlink():
            problem = f"{out} is a symbolic link."
        elif out.exists() and (taken := _why_taken(out, overwrite)):
            problem = taken
        elif out.name in ("", "..") or whole == Path.cwd():
            problem = f"{out} is the working folder, or has no name of its own."
        for path in (root / value for _, value in config if isinstance(value, Path)):
            read = path.resolve()
            if not problem and read in (whole, *whole.parents):
                problem = f"{out} lies in {path}, a folder of the set to convert."
            elif not problem and whole in read.parents:
                problem = f"{path}, of the set to convert, lies in {out}."
    if problem:
        raise UsageError(problem, "Choose another folder with --out; --overwrite replaces an earlier conversion.")


def _why_taken(out: Path, overwrite: bool) -> str:
    """What keeps a conversion out of ``out``, which exists; empty if nothing does."""
    found = sorted(path.name for path in out.iterdir()) if out.is_dir() else None
    if overwrite and found is not None:
        foreign = [name for name in found if name not in WRITTEN]
        return f"{out} holds {foreign[0]}, which no conversion wrote." if foreign else ""
    return "" if found == [] else f"{out} exists and is not an empty folder."


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise output_error(out, error) from error


def _classes(config: SetConfig, source: SampleSource) -> tuple[Mapping[int, str], bool]:
    """Names by category, and whether categories are numbers of classes, which must stay since other sets have them."""
    names = class_names(config, source)
    if names is None:
        return _OBJECT, False
    if isinstance(source, CocoSource) and source.category_ids:
        return {number: names.get(number, f"class_{number}") for number in source.category_ids}, False
    return names, not isinstance(source, LabelmeSource)


def _free_name(key: str, taken: Collection[str]) -> str:
    """A stem for the image ``key``: its path in one word, numbered where another image has that name already."""
    # A backslash would part the name where labelme's paths are read.
    parts = [part.strip("/\\").replace("\\", "-") for part in PurePosixPath(key).with_suffix("").parts]
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
