from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.config.data import CocoConfig
from mobilesam_core.data.coco import CocoSource
from mobilesam_core.errors import DataError
from mobilesam_core.ops.rle import encode_rle

SQUARE = [4, 2, 10, 2, 10, 8, 4, 8]
CONFIG = CocoConfig(format="coco", images=".", annotations="a.json")


def mask() -> np.ndarray:
    found = np.zeros((20, 30), bool)
    found[2:8, 4:10] = True
    return found


def annotation(number: int, segmentation: Any, **changes: Any) -> dict[str, Any]:
    return {
        "id": number, "image_id": 1, "category_id": 5, "iscrowd": 0, "segmentation": segmentation, **changes
    }  # fmt: skip


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a set of one image with ``annotations``, and one image without any; ``changes`` replace top-level keys."""

    def write(*annotations: Any, **changes: Any) -> Path:
        Image.fromarray(np.where(mask(), 200, 30).astype(np.uint8)).save(tmp_path / "1.png")
        images = [{"id": number, "file_name": f"{number}.png", "height": 20, "width": 30} for number in (1, 2)]
        content = {"images": images, "annotations": list(annotations), **changes}
        (tmp_path / "a.json").write_text(json.dumps(content))
        return tmp_path

    return write


def test_all_forms_of_segmentation(write) -> None:
    counts = [4 * 20 + 2, *[6, 14] * 5, 6, 20 * 20 + 12]
    root = write(
        annotation(1, [SQUARE]),
        annotation(2, encode_rle(mask()), category_id=90),
        annotation(3, {"size": [20, 30], "counts": counts}),
        annotation(4, [SQUARE, [20, 10, 25, 10, 25, 15, 20, 15]]),
    )
    source = CocoSource(CONFIG, root)
    sample = source[0]
    assert len(source) == 1 and source.unannotated == 1
    assert sample.key == "1.png" and sample.source == source.describe(0) == str(root / "1.png")
    assert sample.masks.labels.tolist() == [5, 90, 5, 5]
    dense = sample.masks.dense(range(4))
    assert all(np.array_equal(each, mask()) for each in dense[:3])
    assert dense[3, 12, 22] and dense[3, 5, 5]


def test_crowds(write) -> None:
    root = write(annotation(1, [SQUARE]), annotation(2, encode_rle(~mask()), iscrowd=1))
    assert len(CocoSource(CONFIG, root)[0].masks) == 1
    keep = CocoConfig(format="coco", images=".", annotations="a.json", crowd="keep")
    assert CocoSource(keep, root)[0].masks.areas.tolist() == [36, 564]


def test_a_polygon_of_no_pixel_is_left_out(write) -> None:
    sliver = [3.0, 3.0, 3.2, 3.0, 3.2, 3.2]
    assert len(CocoSource(CONFIG, write(annotation(1, [SQUARE]), annotation(2, [sliver])))[0].masks) == 1
    with pytest.raises(DataError, match="no object covers a single pixel"):
        CocoSource(CONFIG, write(annotation(2, [sliver])))[0]


def test_annotations_of_the_raw_frame_turn_with_the_image(write) -> None:
    root = write(annotation(1, [SQUARE]))
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.open(root / "1.png").save(root / "1.png", exif=exif)
    sample = CocoSource(CONFIG, root)[0]
    assert sample.image.shape == (30, 20, 3)
    assert np.array_equal(sample.masks.dense([0])[0], sample.image[..., 0] > 100)


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        (None, "no segmentation"),
        ([], "no segmentation"),
        ([SQUARE[:4]], "at least 3 points"),
        ([[*SQUARE[:-1], float("nan")]], "not a finite number"),
        ({"size": [20, 30], "counts": [10, 20, 30]}, "60 pixels where its size says 600"),
        ({"size": [30, 20], "counts": [600]}, "size \\[30, 20\\] where the image's is \\[20, 30\\]"),
        ({"size": [20, 30], "counts": [600]}, "no pixel"),
        ({"size": [20, 30], "counts": "abc"}, "RLE"),
        ("square", "neither polygons nor RLE"),
    ],
)
def test_a_bad_annotation_is_named(write, segmentation: Any, problem: str) -> None:
    root = write(annotation(1, [SQUARE]), annotation(7, segmentation))
    with pytest.raises(DataError, match=problem) as caught:
        CocoSource(CONFIG, root)[0]
    assert "a.json, image 1.png: annotation 7 " in caught.value.message


def test_all_bad_annotations_of_an_image_are_listed(write) -> None:
    root = write(annotation(1, []), annotation(2, [SQUARE]), annotation(3, [[1, 2]]))
    with pytest.raises(DataError, match=r"annotation 1 .*annotation 3 "):
        CocoSource(CONFIG, root)[0]


def test_an_image_of_another_size(write) -> None:
    root = write(annotation(1, [SQUARE]))
    Image.new("L", (31, 20)).save(root / "1.png")
    with pytest.raises(DataError, match=r"31 x 20 pixels, .*a\.json says 30 x 20"):
        CocoSource(CONFIG, root)[0]


def test_a_missing_image_is_found_when_read(write, tmp_path: Path) -> None:
    root = write(annotation(1, [SQUARE]), annotation(2, [SQUARE], image_id=2))
    source = CocoSource(CONFIG, root)
    assert len(source) == 2 and len(source[0].masks) == 1
    with pytest.raises(DataError, match=r"2\.png does not exist"):
        source[1]
    (root / "1.png").unlink()
    with pytest.raises(DataError, match="None of the 2 images"):
        CocoSource(CONFIG, root)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"annotations": {}}, "`annotations` is not a list"),
        ({"images": "none"}, "`images` is not a list"),
        ({"annotations": []}, "annotates no object"),
        ({"annotations": [annotation(4, [SQUARE], image_id=9)]}, "annotation 4 refers to image 9, which is not listed"),
        ({"annotations": [{"id": 1, "image_id": 1}]}, r"annotations\[0\] has no `category_id`"),
        ({"annotations": [annotation(1, [SQUARE], image_id=[])]}, "`image_id` of annotations"),
        ({"annotations": [3]}, r"annotations\[0\] is no object"),
        (
            {"annotations": [annotation(1, [SQUARE], category_id=2**70)]},
            r"`category_id` of annotations\[0\] does not fit",
        ),
        ({"images": [{"id": 1, "file_name": "1.png", "height": 2}]}, r"images\[0\] has no `width`"),
        ({"images": [{"id": 1, "file_name": "1.png", "height": 2, "width": 3}] * 2}, "id 1 occurs twice"),
    ],
)
def test_what_is_no_coco(write, changes: dict[str, Any], problem: str) -> None:
    root = write(annotation(1, [SQUARE]), **changes)
    with pytest.raises(DataError, match=problem) as caught:
        CocoSource(CONFIG, root)
    assert "a.json" in caught.value.message


def test_entries_that_cannot_be_used_are_all_named_or_left_out(write) -> None:
    image = {"id": 1, "file_name": "1.png", "height": 20, "width": 30}
    root = write(
        annotation(1, [SQUARE]),
        annotation(2, [SQUARE], image_id=8),
        annotation(3, [SQUARE], image_id=9),
        {"id": 4, "image_id": 1},
        images=[image, image, {"id": 9, "file_name": "9.png", "height": 20}],
    )
    words = ("annotation 2 refers to image 8", "annotations[3] has no `category_id`", "id 1 occurs", "images[2] has no")
    with pytest.raises(DataError) as caught:
        CocoSource(CONFIG, root)
    assert all(word in caught.value.message for word in words) and len(caught.value.parts) == 4
    faults: list[DataError] = []
    source = CocoSource(CONFIG, root, on_fault=faults.append)
    assert len(source) == 1 and source[0].masks.areas.tolist() == [36]
    assert [fault.message for fault in faults] == [part.message for part in caught.value.parts]
    assert sorted(fault.fault for fault in faults) == ["annotation", "annotation", "annotation", "unpaired"]


def test_what_is_odd_about_an_image_that_can_be_used(write) -> None:
    sliver = [3.0, 3.0, 3.2, 3.0, 3.2, 3.2]
    root = write(annotation(1, [SQUARE], bbox=[4, 2, 6, 0]), annotation(2, [sliver]), annotation(3, [SQUARE], bbox=[1]))
    source = CocoSource(CONFIG, root)
    where = f"{root / 'a.json'}, image 1.png: "
    assert source[0].remarks == (
        f"{where}annotation 1 has a bbox without area, [4, 2, 6, 0].",
        f"{where}annotation 2 covers no pixel and is left out.",
    )
    write(annotation(4, [[1, 2]]))
    Image.new("L", (31, 20)).save(root / "1.png")
    with pytest.raises(DataError) as caught:
        CocoSource(CONFIG, root)[0]
    assert [part.fault for part in caught.value.parts] == ["size", "annotation"]


def test_category_names(write) -> None:
    root = write(annotation(1, [SQUARE]), categories=[{"id": 5, "name": "cell"}, {"id": 6}, 7])
    assert CocoSource(CONFIG, root).categories == {5: "cell"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("\xff", "not JSON"),
        ("[]", "top level"),
        ("1" * 9999, "thousands of digits"),
        ("{}", "`images` is missing"),
    ],
)
def test_what_is_no_json(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "a.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=problem):
        CocoSource(CONFIG, tmp_path)
    (tmp_path / "a.json").unlink()
    with pytest.raises(DataError, match=r"a\.json does not exist"):
        CocoSource(CONFIG, tmp_path)


@pytest.mark.parametrize(
    ("file", "crowd", "images", "objects"),
    [
        ("annotations", "keep", 54, 532),
        ("annotations", "skip", 54, 527),
        ("train", "skip", 41, 388),
        ("val", "skip", 13, 139),
    ],
)
def test_real_set(data_root: Path, file: str, crowd: str, images: int, objects: int) -> None:
    config = CocoConfig(format="coco", images="images", annotations=f"{file}.json", crowd=crowd)
    source = CocoSource(config, data_root / "coco")
    samples = [source[index] for index in range(len(source))]
    assert len(samples) == images and sum(len(sample.masks) for sample in samples) == objects


def test_masks_cover_the_areas_that_the_real_set_states(data_root: Path) -> None:
    content = json.loads((data_root / "coco/val.json").read_text())
    stated = {each["id"]: each["area"] for each in content["annotations"] if not each["iscrowd"]}
    config = CocoConfig(format="coco", images="images", annotations="val.json")
    source = CocoSource(config, data_root / "coco")
    areas = np.concatenate([source[index].masks.areas for index in range(len(source))])
    assert areas.sum() == pytest.approx(sum(stated.values()), rel=0.01)
