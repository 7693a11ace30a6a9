"""The sets that a folder might hold, of each format."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from mobilesam_core.config.data import (
    CocoConfig,
    FileSetConfig,
    FolderConfig,
    LabelmeConfig,
    Sa1bConfig,
    YoloConfig,
)
from mobilesam_core.data.annotations import read_json_object
from mobilesam_core.data.recognise.masks import glance
from mobilesam_core.data.recognise.splits import Split, split_of, without_split
from mobilesam_core.data.recognise.tree import Folder, Tree
from mobilesam_core.data.subset import some_of
from mobilesam_core.data.yolo import CLASS_NAMES
from mobilesam_core.errors import DataError

_MASK_NAME = re.compile(r"mask|label|seg|annot|truth|(?<![a-z])(gt|target|instance)", re.IGNORECASE)
_SUFFIX = re.compile(
    r"(?P<stem>.+?)(?P<suffix>[-_.]?(mask|gt|seg|label|labels|segmentation|annotation)s?)", re.IGNORECASE
)
_JSONS = 20  # of a folder that are read, to find COCO's
_LOOKED_AT = 4
_FLAT = 0.85  # of neighbours alike: masks have more, photographs less
_FOLDERS = 100  # of images, among which pairs are looked for


@dataclass(frozen=True)
class Candidate:
    """A set that is there, of the folders or files ``images`` and ``labels``; ``key`` is common to its splits."""

    config: FileSetConfig
    images: Path
    labels: Path
    split: Split | None
    key: tuple[str, ...]


@dataclass
class Found:
    """candidates: sets that are there. remarks: what looks like one and cannot be used, a clause each."""

    candidates: list[Candidate] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def is_name_of_masks(folder: Path) -> bool:
    """Whether a folder is called by a word for masks or labels."""
    return _MASK_NAME.search(folder.name) is not None


def find_candidates(tree: Tree, images: Path | None = None, annotations: Path | None = None) -> Found:
    """Every set that ``tree`` might hold; with ``images``, only those of that folder of images.

    annotations: a file that is read before others of its folder, of which not all are.

    A candidate's mask mode, but for ``per_instance``, is not known yet.
    """
    found = Found()
    for folder in tree.folders:
        _add_jsons(folder, tree, annotations, found)
        _add_yolo(folder, tree, found)
    used = _add_per_instance(tree, found)
    _add_masks(tree, used, images, found)
    if images is not None:
        found.candidates = [each for each in found.candidates if tree.root / each.images == images]
    if not found.candidates:
        found.remarks += _named_apart(tree)
    return found


def _candidate(config: FileSetConfig, images: Path, labels: Path) -> Candidate:
    key = (config.format, without_split(images), without_split(labels))
    return Candidate(config, images, labels, split_of(labels) or split_of(images), key)


def _add_jsons(folder: Folder, tree: Tree, first: Path | None, found: Found) -> None:
    place = tree.relative(folder.path)
    own = [file for file in folder.jsons if first is not None and file.samefile(first)]
    others = [file for file in folder.jsons if file not in own]
    for file in [*own, *others][:_JSONS]:
        try:
            content = read_json_object(file, "annotations", "")
        except DataError as error:
            found.remarks.append(f"{file.name}: {error.message.rstrip('.')}")
            continue
        if isinstance(content.get("shapes"), list) and isinstance(content.get("imagePath"), str):
            picture = Path(content["imagePath"].replace("\\", "/"))
            images = tree.best_match((each.stem for each in folder.jsons), folder.path)
            if (file.parent / picture).is_file():
                where = Path(os.path.normpath(place / picture.parent))
                found.candidates.append(_candidate(LabelmeConfig(format="labelme", annotations=place), where, place))
            elif images is not None:
                where = tree.relative(images.path)
                config = LabelmeConfig(format="labelme", annotations=place, images=where)
                found.candidates.append(_candidate(config, where, place))
            else:
                found.remarks.append(f"{file.name} is of labelme, but its image {content['imagePath']} is not there")
            return
        if isinstance(content.get("annotations"), list) and isinstance(content.get("image"), dict):
            images = tree.best_match((each.stem for each in folder.jsons), folder.path)
            if images is None:
                found.remarks.append(f"{file.name} is as in SA-1B, but there is no image of that name")
                return
            where = tree.relative(images.path)
            sa1b = Sa1bConfig(format="sa1b", images=where, annotations=None if where == place else place)
            found.candidates.append(_candidate(sa1b, where, place))
            return
        if isinstance(content.get("annotations"), list) and isinstance(content.get("images"), list):
            _add_coco(file, content, tree, found)


def _add_coco(file: Path, content: Mapping[str, Any], tree: Tree, found: Found) -> None:
    annotations = [each for each in content["annotations"] if isinstance(each, dict)]
    if not any(each.get("segmentation") for each in annotations):
        if any("bbox" in each for each in annotations):
            found.remarks.append(f"{file.name} is COCO with boxes and no masks")
        return
    images = [each for each in content["images"] if isinstance(each, dict)]
    names = [each["file_name"] for each in some_of(images, _LOOKED_AT) if isinstance(each.get("file_name"), str)]
    hits = {folder.path: sum((folder.path / name).is_file() for name in names) for folder in tree.folders}
    most = max(hits.values())
    folder = tree.most_alike({path: count for path, count in hits.items() if count == most}, file)
    if folder is None:
        found.remarks.append(f"{file.name} is COCO, but its images, such as {(names or ['?'])[0]}, are not there")
        return
    where, place = tree.relative(folder.path), tree.relative(file)
    found.candidates.append(_candidate(CocoConfig(format="coco", images=where, annotations=place), where, place))


def _add_yolo(folder: Folder, tree: Tree, found: Found) -> None:
    files = [file for file in folder.texts if file.name.lower() != CLASS_NAMES]
    images = tree.best_match((file.stem for file in files), folder.path)
    if images is None:
        return
    counts = {len(line.split()) for file in some_of(files, _LOOKED_AT) for line in _lines(file)}
    if counts == {5}:
        found.remarks.append(f"the text files of {folder.path.name} are YOLO's boxes, which are no masks")
    elif counts and min(counts) >= 5 and all(count % 2 for count in counts):
        where, place = tree.relative(images.path), tree.relative(folder.path)
        found.candidates.append(_candidate(YoloConfig(format="yolo", images=where, labels=place), where, place))


def _lines(file: Path) -> list[str]:
    """The first lines of a text file that read as numbers; none of another."""
    try:
        lines = [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        for line in lines[:_LOOKED_AT]:
            [float(number) for number in line.split()]
    except (OSError, ValueError):
        return []
    return lines[:_LOOKED_AT]


def _add_per_instance(tree: Tree, found: Found) -> set[Path]:
    """Add folders of folders of masks; returns the folders that these are."""
    used: set[Path] = set()
    by_path = {folder.path: folder for folder in tree.folders}
    for folder in tree.folders:
        holding = [name for name in folder.subfolders if getattr(by_path.get(folder.path / name), "images", None)]
        images = tree.best_match(holding, folder.path)
        if images is None or images.path.is_relative_to(folder.path):
            continue
        paired = [name for name in holding if name in images.images]
        if len(paired) < 0.5 * len(holding):
            continue
        used |= {folder.path / name for name in holding}
        where, place = tree.relative(images.path), tree.relative(folder.path)
        config = FolderConfig(format="folder", images=where, masks=place, mask_mode="per_instance")
        found.candidates.append(_candidate(config, where, place))
    return used


def _add_masks(tree: Tree, used: set[Path], only: Path | None, found: Found) -> None:
    """Add pairs of folders with images of the same stems, of which one has masks."""
    folders = [folder for folder in tree.folders if folder.images and folder.path not in used]
    if len(folders) > _FOLDERS:
        found.remarks.append(f"its images lie in {len(folders)} folders")
        return
    likeness = cache(lambda place: _mask_likeness(folders[place]))
    for m, masks in enumerate(folders):
        for i, images in enumerate(folders):
            common = len(masks.images.keys() & images.images.keys())
            if i == m or common < 0.5 * min(len(masks.images), len(images.images)):
                continue
            where, place = tree.relative(images.path), tree.relative(masks.path)
            # Stems like 0001 are in every split.
            if split_of(where) != split_of(place) or (only is not None and images.path != only):
                continue
            if likeness(m) < 2 or likeness(m) <= likeness(i):
                continue
            config = FolderConfig(format="folder", images=where, masks=place, mask_mode="binary")
            found.candidates.append(_candidate(config, where, place))


def _mask_likeness(folder: Folder) -> int:
    """From 0 to 4: flat in colour (2), called masks (1), of one channel (1)."""
    glances = [seen for file in some_of(list(folder.images.values()), _LOOKED_AT) if (seen := glance(file))]
    if not glances:
        return 0
    score = 2 * all(each.flatness > _FLAT for each in glances)
    return score + is_name_of_masks(folder.path) + all(each.one_channel for each in glances)


def _named_apart(tree: Tree) -> list[str]:
    """A remark where masks are called ``cat_mask.png``, and images ``cat.jpg``."""
    stems = {stem: path for folder in tree.folders for stem, path in folder.images.items()}
    for stem, path in stems.items():
        match = _SUFFIX.fullmatch(stem)
        if match and match["stem"] in stems:
            image = stems[match["stem"]].name
            return [f"{path.name} seems to be the mask of {image}, and needs its name, in a folder of its own"]
    return []
