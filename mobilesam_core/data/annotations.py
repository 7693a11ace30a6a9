"""What annotation files have in common: JSON, segmentations, and objects of which each bad one is named."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard, TypeVar

from mobilesam_core.errors import DataError, DataFault
from mobilesam_core.ops.masks import RleMasks
from mobilesam_core.ops.rle import compress_rle, polygons_to_rle, rle_areas

Entry = TypeVar("Entry")
Rle = dict[str, Any]
NO_PIXEL = "covers no pixel and is left out"
"""The remark on an object that is not there."""


class Read(NamedTuple):
    """One object as it was read.

    rle: None where it covers no pixel. remark: what is odd about it, which finishes "annotation 7 ..."; "" is nothing.
    """

    rle: Rle | None
    label: int
    remark: str = ""


def read_json_object(path: Path, name: str, expected: str, fault: DataFault = "unusable") -> Mapping[str, Any]:
    """The object that a JSON file holds.

    name: of the format. expected: a sentence that says what it must be. fault: what it is if it cannot be had.

    Raises:
        DataError: the file is missing, cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(
            f"The annotation file {path} does not exist.",
            "Check `annotations` of the data set and `data.root`.",
            fault,
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Check the path.", fault) from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}.", expected, fault) from error
    except ValueError as error:  # Python converts no more digits, since that takes long
        raise DataError(f"{path} holds a number of thousands of digits.", expected, fault) from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not {name}: its top level is no object.", expected, fault)
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


def is_text(value: Any) -> TypeGuard[str]:
    """Whether a value of a JSON file is a text that can be written again: half a surrogate pair cannot."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def is_int64(value: Any) -> TypeGuard[int]:
    """Whether a value of a JSON file is a whole number that an array of labels holds."""
    return isinstance(value, int) and -(2**63) <= value < 2**63


def flat_box(annotation: Mapping[str, Any]) -> str:
    """A remark if the ``bbox`` of an annotation, which nothing here reads, has no area."""
    box = annotation.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(side, int | float) for side in box)):
        return ""
    return f"has a bbox without area, {box}" if min(box[2:]) <= 0 else ""


def read_objects(
    entries: Iterable[tuple[str, Entry]],
    read: Callable[[Entry], Read],
    shape: tuple[int, int],
    where: str,
) -> tuple[RleMasks, tuple[str, ...]]:
    """The objects of one image of ``shape``, and what is odd about some; those that cover no pixel are left out.

    entries: each with what messages call it. where: names file and image.

    Raises:
        DataError: some cannot be read (``read`` raised a ValueError; all are listed), or no object is left.
    """
    rles, labels, problems, remarks = [], [], [], []
    for name, entry in entries:
        try:
            rle, label, remark = read(entry)
        except ValueError as error:
            problems.append(f"{name} {error}")
            continue
        if rle is None:
            remark = NO_PIXEL
        else:
            rles.append(rle)
            labels.append(label)
        if remark:
            remarks.append(f"{name} {remark}")
    if problems:
        # With what is odd besides, since nobody would hear of that otherwise.
        text = "; ".join([*problems, *remarks])
        raise DataError(f"{where}: {text}.", "Correct or remove what is listed.", "annotation")
    if not rles:
        raise DataError(f"{where}: no object covers a single pixel.", "Remove the image or its annotations.", "empty")
    return RleMasks(rles, shape, labels), tuple(f"{where}: {remark}." for remark in remarks)
