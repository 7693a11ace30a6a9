"""From a folder to the sets that a training config names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilesam_core.config.data import FileSetConfig, FolderConfig, MaskMode
from mobilesam_core.data.reading import list_images
from mobilesam_core.data.recognise.candidates import Candidate, find_candidates, is_name_of_masks
from mobilesam_core.data.recognise.masks import read_masks_as
from mobilesam_core.data.recognise.splits import Split
from mobilesam_core.data.recognise.tree import Tree
from mobilesam_core.errors import DataError, UsageError

_ABOVE = 2  # folders above one of images, in which its masks are looked for …
_SIBLINGS = 300  # … among so many
_NEEDED = (
    "Training needs masks: images/ and masks/ with files of the same names, COCO or labelme JSON, YOLO polygons, or "
    "JSON as in SA-1B. Without any, `mobilesam amg IMAGES --format sa1b --out masks` makes masks to correct."
)
_TITLES = {"coco": "COCO JSON", "sa1b": "JSON as in SA-1B", "labelme": "labelme JSON", "yolo": "YOLO polygons"}
_ORDER = (*_TITLES, "folder")


@dataclass(frozen=True)
class RecognisedData:
    """What a folder holds.

    root: what the paths of the sets are relative to. why: how it was told, a clause. remarks: what else the user
    should know, a sentence each.
    """

    root: Path
    train: FileSetConfig
    val: FileSetConfig | None
    why: str
    remarks: tuple[str, ...]


def recognise(place: Path) -> RecognisedData:
    """Tell what data ``place`` holds: a folder, a folder of images whose masks lie beside it, or a COCO file.

    Raises:
        UsageError: it is not there, is nothing of the kind, or holds several sets.
        DataError: it cannot be told; the message says what was seen and what would be needed.
        OSError: it may not be read.
    """
    if not place.exists():
        raise UsageError(f"There is no {place}.", "Name the folder of your data.")
    if place.is_file():
        if place.suffix.lower() != ".json":
            raise UsageError(f"{place} is a file.", "Name the folder of your data, or a COCO JSON file.")
        return _recognise_file(place)
    next(place.iterdir(), None)  # a folder that may not be read is an error, those below it are passed over
    tree = Tree(place)
    found = find_candidates(tree)
    if not found.candidates and tree.folders[0].images:
        for levels in range(1, _ABOVE + 1):
            above = Tree(_above(place, levels), depth=levels, most=_SIBLINGS)
            found_above = find_candidates(above, above.root / Path(*place.absolute().parts[-levels:]))
            beside = [each for each in found_above.candidates if _belongs(each, levels)]
            if beside:
                return _choose(above, beside, [], place)
    return _choose(tree, found.candidates, found.remarks, place)


def _recognise_file(place: Path) -> RecognisedData:
    """The set of a COCO file, with its other splits; images are beside it, below, or in the folder above."""
    remarks: list[str] = []
    for tree in (Tree(place.parent), Tree(_above(place, 2), most=_SIBLINGS)):
        found = find_candidates(tree, annotations=place)
        files = [each for each in found.candidates if each.config.format == "coco"]
        own = {each.key for each in files if (tree.root / each.labels).samefile(place)}
        if own:
            return _choose(tree, [each for each in files if each.key in own], [], place)
        remarks = remarks or [each for each in found.remarks if each.startswith(place.name)]
    seen = "; ".join(remarks) or f"{place} is not COCO instance JSON"
    raise DataError(f"{seen}.", _NEEDED, "set")


def _belongs(candidate: Candidate, levels: int) -> bool:
    """Whether labels outside the folder of images, found so many levels above, are surely theirs.

    That are masks/ beside images/, labels/val beside images/val, and a file that names the images.
    """
    labels = candidate.labels
    if candidate.config.format == "coco":
        return True
    if levels == 1:
        return is_name_of_masks(labels)
    return labels.name == candidate.images.name and is_name_of_masks(labels.parent)


def _above(place: Path, levels: int) -> Path:
    """The folder ``levels`` above, absolute only if ``place`` is."""
    above = place.absolute().parents[min(levels, len(place.absolute().parents)) - 1]
    return above if place.is_absolute() else Path(os.path.relpath(above))


def _choose(tree: Tree, candidates: Sequence[Candidate], remarks: Sequence[str], place: Path) -> RecognisedData:
    groups: dict[tuple[str, ...], dict[Split | None, Candidate]] = {}
    for each in candidates:
        groups.setdefault(each.key, {}).setdefault(each.split, each)
    if not groups:
        raise _unknown(tree, remarks, place)
    ranked = sorted(groups.values(), key=_rank)
    best = ranked[0]
    lone = [group for group in ranked if len(group) == 1]
    if len(ranked) == 2 and len(lone) == 2 and {*lone[0], *lone[1]} == {"train", "val"}:
        best = lone[0] | lone[1]  # splits of which each has names of its own
    shown = {each.images for each in best.values()}
    others = [group for group in ranked if not any(each.images in shown for each in group.values())]
    if others:
        names = sorted({each.images.as_posix() for group in [best, *others] for each in group.values()})
        raise UsageError(
            f"{place} holds several data sets, with images in {', '.join(names)}.", "Name the folder of one of them."
        )
    train = next(best[split] for split in ("train", None, "val", "test") if split in best)
    val = next((best[split] for split in ("val", "test") if split in best and best[split] is not train), None)
    chosen = [train] if val is None else [train, val]
    configs, why = _read_masks(chosen, tree.root)
    said = [_of_splits(val)]
    used = {each.labels for each in best.values()}
    besides = sorted({each.labels.as_posix() for group in ranked for each in group.values() if each.labels not in used})
    if besides:
        said.append(f"The same images have other labels too, which are not used: {', '.join(besides)}.")
    return RecognisedData(tree.root, configs[0], configs[1] if val else None, why, tuple(filter(None, said)))


def _rank(group: dict[Split | None, Candidate]) -> tuple[bool, int, bool, str]:
    """What comes first is taken: with splits, of the format that says most, of the usual name."""
    first = next(iter(group.values()))
    usual = first.labels.name in ("mask", "masks") or "instances" in first.labels.name
    whole = "train" in group and len(group) > 1
    return not whole, _ORDER.index(first.config.format), not usual, first.labels.as_posix()


def _of_splits(val: Candidate | None) -> str:
    if val is None:
        return "There is no validation set: `best` will be the last checkpoint. A folder val/ like train/ makes one."
    if val.split == "test":
        return "There is no val but a test set, which is validated on: it cannot judge the result any more."
    return ""


def _read_masks(chosen: Sequence[Candidate], root: Path) -> tuple[list[FileSetConfig], str]:
    """The sets, with the mask mode of their masks, and how they were told."""
    configs = [each.config for each in chosen]
    first = configs[0]
    if not isinstance(first, FolderConfig):
        return configs, _TITLES[first.format]
    if first.mask_mode == "per_instance":
        return configs, "a folder of masks for each image"
    folders = [config for config in configs if isinstance(config, FolderConfig)]
    reading = read_masks_as([file for config in folders for file in list_images(root / config.masks)])
    changes = {"mask_mode": reading.mode, "ignore_index": reading.ignore_index}
    return [config.model_copy(update=changes) for config in folders], f"masks of {reading.why}"


def _unknown(tree: Tree, remarks: Sequence[str], place: Path) -> DataError:
    jsons, texts = (sum(len(getattr(each, kind)) for each in tree.folders) for kind in ("jsons", "texts"))
    seen = f"{tree.images} images, {jsons} JSON and {texts} text files, and no masks that can be told"
    odd = "".join(f"; {remark}" for remark in remarks[:3])
    return DataError(f"{place} holds {seen}{odd}.", _NEEDED, "set")


def mask_mode_of(images: Path, masks: Path) -> MaskMode | None:
    """How the masks of a folder are to be read; None where there are none.

    Raises:
        DataError: they cannot be told.
        OSError: they may not be read.
    """
    if not (images.is_dir() and masks.is_dir()):
        return None
    if files := list_images(masks):
        return read_masks_as(files).mode
    return "per_instance" if any(path.is_dir() for path in masks.iterdir()) else None
