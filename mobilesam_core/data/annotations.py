"""What annotation files have in common: JSON, segmentations, and objects of which each bad one is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mobilesam_core.errors import DataError
from mobilesam_core.ops.masks import RleMasks
from mobilesam_core.ops.rle import compress_rle, polygons_to_rle, rle_areas

Entry = TypeVar("Entry")
Rle = dict[str, Any]


def read_json_object(path: Path, name: str, expected: str) -> Mapping[str, Any]:
    """The object that a JSON file holds.

    name: of the format. expected: a sentence that says what it must be.

    Raises:
        DataError: the file is missing, cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(
            f"The annotation file {path} does not exist.",
            "Check `annotations` of the data set and `data.root`.",
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}.", expected) from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not {name}: its top level is no object.", expected)
    return content


def read_segmentation(segmentation: Any, shape: tuple[int, int]) -> Rle | None:
    """The compressed RLE of COCO's ``segmentation``, or None for a polygon that covers no pixel (COCO has a few).

    Raises:
        ValueError: it cannot be used; the text finishes "annotation 7 ...".
    """
    if not segmentation:
        raise ValueError("has no segmentation")
    if isinstance(segmentation, list):
        rle = polygons_to_rle(segmentation, *shape)
        return rle if rle_areas([rle])[0] else None
    if not isinstance(segmentation, dict):
        raise ValueError("has a segmentation that is neither polygons nor RLE")
    rle = compress_rle(segmentation)
    if rle["size"] != list(shape):
        raise ValueError(f"is an RLE of size {rle['size']} where the image's is {list(shape)}")
    if not rle_areas([rle])[0]:
        raise ValueError("is an RLE of no pixel")
    return rle


def read_objects(
    entries: Iterable[tuple[str, Entry]],
    read: Callable[[Entry], tuple[Rle | None, int]],
    shape: tuple[int, int],
    where: str,
) -> RleMasks:
    """The objects of one image of ``shape``; those that cover no pixel (None) are left out.

    entries: each with what messages call it. read: the RLE and the label of one. where: names file and image.

    Raises:
        DataError: some cannot be read (``read`` raised a ValueError; all are listed), or no object is left.
    """
    rles, labels, problems = [], [], []
    for name, entry in entries:
        try:
            rle, label = read(entry)
        except ValueError as error:
            problems.append(f"{name} {error}")
            continue
        if rle is not None:
            rles.append(rle)
            labels.append(label)
    if problems:
        raise DataError(f"{where}: {'; '.join(problems)}.", "Correct or remove what is listed.")
    if not rles:
        raise DataError(f"{where}: no object covers a single pixel.", "Remove the image or its annotations.")
    return RleMasks(rles, shape, labels)
