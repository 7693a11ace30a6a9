"""Images beside mask images: the layouts people make by hand and most tools export."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import cv2
import numpy as np

from mobilesam_core.config.data import FolderConfig
from mobilesam_core.data.faults import Faults, OnFault, sum_up
from mobilesam_core.data.reading import list_images, read_binary_mask, read_image, read_label_map, read_oriented
from mobilesam_core.data.sample import Sample, path_key
from mobilesam_core.errors import DataError
from mobilesam_core.ops.masks import InstanceMasks, LabelMapMasks, RleMasks
from mobilesam_core.ops.rle import encode_rle

_LISTED = 50  # names in one message; more would hide what it says


class FolderSource:
    """Pairs of an image and a mask file (or a folder of mask files) of the same stem, sorted by file name.

    Args:
        on_fault: told of each file that does not pair up; the pairs make the set. None: these are an error.

    Raises:
        DataError: a folder is missing, there is no image, or images and masks do not pair up; the message
            lists the stems.
    """

    def __init__(self, config: FolderConfig, root: Path, channels: int = 3, on_fault: OnFault | None = None) -> None:
        self._images = require_folder(root / config.images, "images")
        self._mode = config.mask_mode
        self._ignore_index = config.ignore_index
        self._channels = channels
        masks = require_folder(root / config.masks, "masks")
        images = require_images(self._images)
        if self._mode == "per_instance":
            found = sorted(path for path in masks.iterdir() if path.is_dir() and not path.name.startswith("."))
            self._pairs = pair_by_stem(images, found, masks, [path.name for path in found], on_fault)
        else:
            found = list_images(masks)
            self._pairs = pair_by_stem(images, found, masks, [path.stem for path in found], on_fault)

    def __len__(self) -> int:
        return len(self._pairs)

    def describe(self, index: int) -> str:
        return str(self._pairs[index][0])

    def __getitem__(self, index: int) -> Sample:
        image_path, mask_path = self._pairs[index]
        try:
            image, orientation = read_oriented(image_path, self._channels)
        except DataError as error:
            raise sum_up([error, *_unreadable(mask_path)]) from error
        masks = self._read_masks(mask_path, (image.shape[0], image.shape[1]), orientation)
        return Sample(path_key(image_path, self._images), image, masks, str(image_path))

    def _read_masks(self, path: Path, shape: tuple[int, int], orientation: int) -> InstanceMasks:
        if self._mode == "per_instance":
            return _read_instances(path, shape, orientation)
        if self._mode in ("binary", "components"):
            label_map: np.ndarray = read_binary_mask(path, shape, orientation).astype(np.uint8)
            if self._mode == "components":
                label_map = cv2.connectedComponents(label_map)[1]  # 8-connected
        else:
            label_map = read_label_map(path, shape, orientation)
            if self._mode == "classes" and self._ignore_index is not None:
                label_map = np.where(label_map == self._ignore_index, 0, label_map)
        masks = LabelMapMasks(label_map)
        if len(masks) == 0:
            raise _empty(path)
        return masks


def require_folder(path: Path, key: str) -> Path:
    """``path``, which the config's ``key`` names, if it is a folder; else a DataError."""
    if not path.is_dir():
        problem = "is not a folder" if path.exists() else "does not exist"
        raise DataError(f"The folder {path} {problem}.", f"Check `{key}` of the data set and `data.root`.", "set")
    return path


def require_images(folder: Path) -> list[Path]:
    """The image files of ``folder``, sorted by name; a DataError where there is none."""
    images = list_images(folder)
    if not images:
        raise DataError(
            f"The folder {folder} holds no image.", "Check `images` of the data set and `data.root`.", "set"
        )
    return images


def list_labels(folder: Path, suffix: str) -> list[Path]:
    """What of ``folder`` has this suffix, in capitals too, sorted by name; hidden files are left out.

    A link to nothing is listed, so that reading it says what is wrong.
    """
    found = (path for path in folder.iterdir() if path.suffix.lower() == suffix)
    return sorted(path for path in found if not path.name.startswith("."))


def _unreadable(masks: Path) -> list[DataError]:
    """What of the mask file, or the folder of masks, of an image cannot be read, whatever its size should be."""
    faults = Faults()
    for path in list_images(masks) if masks.is_dir() else [masks]:
        with faults.catch():
            read_image(path)
    return faults.found


def _read_instances(folder: Path, shape: tuple[int, int], orientation: int) -> InstanceMasks:
    files = list_images(folder)
    if not files:
        raise DataError(f"The folder {folder} holds no mask.", "Add its masks, or remove it and its image.", "empty")
    rles = []
    faults = Faults()
    for path in files:
        with faults.catch():
            mask = read_binary_mask(path, shape, orientation)
            if not mask.any():
                raise _empty(path)
            rles.append(encode_rle(mask))
    faults.settle()
    return RleMasks(rles, shape, labels=np.arange(1, len(rles) + 1))


def _empty(path: Path) -> DataError:
    return DataError(f"{path} is empty: it marks no object.", "Remove it with its image, or mark the object.", "empty")


def pair_by_stem(
    images: list[Path],
    masks: list[Path],
    folder: Path,
    stems: list[str],
    on_fault: OnFault | None,
    what: str = "mask",
) -> list[tuple[Path, Path]]:
    """Images with the masks of their stems, sorted; ``stems`` are those of ``masks``, which lie in ``folder``.

    on_fault: told of each file that does not pair up. what: the word for a mask in messages, where it is another thing.

    Raises:
        DataError: they do not pair up and there is no ``on_fault`` (the message lists the stems), or none does.
    """
    images_of, masks_of = _by_stem(images, [path.stem for path in images]), _by_stem(masks, stems)
    problems = [
        (f"images without a {what}", f"has no {what}", _only(images_of, images_of.keys() - masks_of.keys())),
        (f"{what}s without an image", "has no image", _only(masks_of, masks_of.keys() - images_of.keys())),
        ("stems of several images", "are images of one stem", {s: p for s, p in images_of.items() if len(p) > 1}),
        (f"stems of several {what}s", f"are {what}s of one stem", {s: p for s, p in masks_of.items() if len(p) > 1}),
    ]
    remedy = f"An image and its {what} have the same file name up to the suffix: add or remove what is listed."
    found = [f"{what} ({len(named)}): {_listing(named)}" for what, _, named in problems if named]
    if found and on_fault is None:
        raise DataError(f"{images[0].parent} and {folder} do not pair up: {'; '.join(found)}.", remedy, "unpaired")
    for _, predicate, named in problems:
        for paths in named.values():
            assert on_fault is not None
            on_fault(DataError(f"{' and '.join(map(str, paths))} {predicate}.", remedy, "unpaired"))
    both = images_of.keys() & masks_of.keys()
    single = [stem for stem in both if len(images_of[stem]) == len(masks_of[stem]) == 1]
    pairs = sorted((images_of[stem][0], masks_of[stem][0]) for stem in single)
    if not pairs:
        raise DataError(f"No image of {images[0].parent} has its {what} in {folder}.", remedy, "set")
    return pairs


def _only(paths: dict[str, list[Path]], stems: Collection[str]) -> dict[str, list[Path]]:
    return {stem: paths[stem] for stem in sorted(stems)}


def _by_stem(paths: list[Path], stems: list[str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path, stem in zip(paths, stems, strict=True):
        found.setdefault(stem, []).append(path)
    return found


def _listing(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - _LISTED
    return ", ".join(ordered[:_LISTED]) + (f" and {more} more" if more > 0 else "")
