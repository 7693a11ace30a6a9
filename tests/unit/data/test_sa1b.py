from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.config.data import Sa1bConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.errors import DataError
from mobilesam_core.ops.rle import encode_rle

CONFIG = Sa1bConfig(format="sa1b", images="photos")


def mask() -> np.ndarray:
    found = np.zeros((20, 30), bool)
    found[2:8, 4:10] = True
    return found


def annotation(number: Any = 7, **changes: Any) -> dict[str, Any]:
    return {"id": number, "segmentation": encode_rle(mask()), "bbox": [4, 2, 6, 6], "area": 36, **changes}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of one image and its JSON, of these annotations or of this text."""

    def write(*annotations: Any, text: str | None = None) -> Path:
        (tmp_path / "photos").mkdir()
        Image.fromarray(np.where(mask(), 200, 30).astype(np.uint8)).save(tmp_path / "photos/sa_1.jpg")
        facts = {"image_id": 1, "width": 30, "height": 20, "file_name": "sa_1.jpg"}
        document = json.dumps({"image": facts, "annotations": list(annotations)})
        (tmp_path / "photos/sa_1.json").write_text(document if text is None else text)
        return tmp_path

    return write


def test_images_and_json_files_of_one_folder(write) -> None:
    plain = {"size": [20, 30], "counts": [4 * 20 + 2, *[6, 14] * 5, 6, 20 * 20 + 12]}
    root = write(annotation(536897503), annotation(3, segmentation=plain))
    source = build_source(CONFIG, root)
    sample = source[0]
    assert len(source) == 1 and sample.key == "sa_1.jpg" and sample.source == source.describe(0)
    assert sample.masks.labels.tolist() == [536897503, 3] and sample.masks.areas.tolist() == [36, 36]
    assert all(np.array_equal(each, mask()) for each in sample.masks.dense([0, 1]))


def test_json_files_in_a_folder_of_their_own(write) -> None:
    root = write(annotation())
    (root / "photos/sa_1.json").rename(root / "sa_1.json")
    with pytest.raises(DataError, match=r"images without a JSON file \(1\): sa_1"):
        build_source(CONFIG, root)
    assert len(build_source(Sa1bConfig(format="sa1b", images="photos", annotations="."), root)[0].masks) == 1


def test_images_without_objects_are_left_out_and_counted(write) -> None:
    root = write(annotation())
    Image.new("L", (30, 20)).save(root / "photos/sa_2.jpg")
    (root / "photos/sa_2.json").write_text('{"image": {"image_id": 2}, "annotations": []}')
    source = build_source(CONFIG, root)
    assert len(source) == 1 and source.unannotated == 1
    (root / "photos/sa_1.json").write_text('{"annotations": []}')
    with pytest.raises(DataError, match="annotate no object"):
        build_source(CONFIG, root)


def test_suffixes_in_capitals_and_broken_links(write) -> None:
    root = write(annotation())
    (root / "photos/sa_1.json").rename(root / "photos/sa_1.JSON")
    Image.new("L", (30, 20)).save(root / "photos/sa_2.jpg")
    (root / "photos/sa_2.json").symlink_to("nowhere")
    source = build_source(CONFIG, root)
    assert len(source) == 2 and source[0].masks.labels.tolist() == [7]
    with pytest.raises(DataError, match=r"sa_2\.json does not exist"):
        source[1]


def test_what_can_be_left_out(write) -> None:
    root = write(annotation(bbox=[4, 2, 0, 6]))
    Image.new("L", (30, 20)).save(root / "photos/sa_2.jpg")
    faults: list[DataError] = []
    source = build_source(CONFIG, root, on_fault=faults.append)
    assert len(source) == 1 and [fault.fault for fault in faults] == ["unpaired"]
    assert "sa_2.jpg has no JSON file" in faults[0].message
    assert source[0].remarks == (
        f"{root / 'photos/sa_1.json'}: annotations[0] has a bbox without area, [4, 2, 0, 6].",
    )  # fmt: skip
    for name in ("sa_1.json", "sa_1.jpg"):
        (root / "photos" / name).write_text("[]")
    with pytest.raises(DataError) as caught:
        source[0]
    assert len(caught.value.parts) == 2


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (annotation(-4), "has the id -4"),
        (annotation("x"), "has the id 'x'"),
        (annotation(segmentation=None), "no segmentation"),
        (annotation(segmentation={"size": [30, 20], "counts": [600]}), r"size \[30, 20\] where the image's is"),
        (annotation(segmentation={"size": [20, 30], "counts": "abc"}), "RLE"),
        (annotation(segmentation={"size": [20, 30], "counts": [600]}), "no pixel"),
        ([], "is no object"),
    ],
)
def test_a_bad_annotation_is_named(write, entry: Any, problem: str) -> None:
    source = build_source(CONFIG, write(annotation(), entry))
    with pytest.raises(DataError, match=problem) as caught:
        source[0]
    assert "sa_1.json: annotations[1] " in caught.value.message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"image": {}, "annotations": [{"id": 1, "segm', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "top level"),
        ('{"image": {}}', "`annotations` is missing"),
        ('{"annotations": {}}', "`annotations` is not a list"),
        ('{"annotations": [], "image": "' + "x" * 3000 + '"}', "annotates no object"),
    ],
)
def test_what_is_no_sa1b(write, text: str, problem: str) -> None:
    source = build_source(CONFIG, write(text=text))
    with pytest.raises(DataError, match=problem) as caught:
        source[0]
    assert "sa_1.json" in caught.value.message
