from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.config.data import LabelmeConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.errors import DataError

CONFIG = LabelmeConfig(format="labelme", annotations="labelled")
SQUARE = [[4, 2], [10, 2], [10, 8], [4, 8]]


def shape(points: Any = SQUARE, label: Any = "cell", kind: str | None = "polygon", **changes: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}, **changes}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes ``labelled/1.json`` and its image of 30 x 20 pixels; ``changes`` replace top-level keys."""

    def write(*shapes: Any, **changes: Any) -> Path:
        (tmp_path / "labelled").mkdir(exist_ok=True)
        Image.new("L", (30, 20)).save(tmp_path / "labelled/one.png")
        content = {"imagePath": "one.png", "imageHeight": 20, "imageWidth": 30, "shapes": list(shapes), **changes}
        (tmp_path / "labelled/1.json").write_text(json.dumps(content))
        return tmp_path

    return write


def test_shapes(write) -> None:
    root = write(
        shape(),
        shape([[10, 8], [4, 2]], kind="rectangle"),
        shape([[15, 10], [15, 15]], "disc", "circle"),
        shape([[4.4, 2.4], [9.6, 2.4], [9.6, 7.6], [4.4, 7.6]], kind=None),
    )
    source = build_source(CONFIG, root)
    sample = source[0]
    assert sample.key == "one.png" and sample.source == source.describe(0) == str(root / "labelled/one.png")
    assert source.categories == {1: "cell", 2: "disc"} and sample.masks.labels.tolist() == [1, 1, 2, 1]
    polygon, rectangle, circle, rounded = sample.masks.dense(range(4))
    assert polygon.sum() == 36 and polygon[2:8, 4:10].all() and np.array_equal(polygon, rectangle)
    rows, columns = np.mgrid[:20, :30] + 0.5
    assert np.array_equal(circle, (columns - 15) ** 2 + (rows - 10) ** 2 <= 25)
    assert (rounded & polygon).sum() / (rounded | polygon).sum() > 0.8


def test_a_group_of_one_label_is_one_object(write) -> None:
    other = [[20, 10], [25, 10], [25, 15], [20, 15]]
    root = write(shape(group_id=3), shape(group_id=3, label="disc"), shape(other, group_id=3), shape(other))
    masks = build_source(CONFIG, root)[0].masks
    assert masks.areas.tolist() == [61, 36, 25] and masks.labels.tolist() == [1, 2, 1]


def test_where_images_are(write, tmp_path: Path) -> None:
    root = write(shape(), imagePath="..\\photos\\one.png")
    (root / "photos").mkdir()
    (root / "labelled/one.png").rename(root / "photos/one.png")
    assert len(build_source(CONFIG, root)[0].masks) == 1
    write(shape(), imagePath="/elsewhere/one.png")
    with pytest.raises(DataError, match=r"one\.png does not exist"):
        build_source(CONFIG, root)[0]
    config = LabelmeConfig(format="labelme", annotations="labelled", images="photos")
    assert len(build_source(config, root)[0].masks) == 1


def test_suffixes_in_capitals(write) -> None:
    root = write(shape())
    (root / "labelled/1.json").rename(root / "labelled/1.JSON")
    assert len(build_source(CONFIG, root)) == 1


def test_json_files_without_shapes_are_left_out_and_counted(write) -> None:
    root = write(shape())
    (root / "labelled/2.json").write_text('{"imagePath": "two.png", "shapes": []}')
    source = build_source(CONFIG, root)
    assert len(source) == 1 and source.unannotated == 1
    write()
    with pytest.raises(DataError, match="hold no shape"):
        build_source(CONFIG, root)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (shape(kind="mask"), r"shapes\[1\] \('cell'\) is of the type 'mask'; of labelme's, polygon"),
        (shape(kind="linestrip"), "'linestrip'"),
        (shape(SQUARE[:2]), "at least 3 points"),
        (shape(SQUARE, kind="circle"), "is a circle of 4 points, not of 2"),
        (shape(SQUARE[:1], kind="rectangle"), "is a rectangle of 1 points"),
        (shape([]), "has no points"),
        (shape([[1, 2], [3, 4], [5]]), r"the point \[5\]"),
        (shape([[1, 2], [3, 4], [5, float("nan")]]), r"the point \[5, nan\]"),
        (shape([[1, 2], [3, 4], [5, "6"]]), r"the point \[5, '6'\]"),
        (shape([[1, 2], [3, 4], [5, 1e9]]), "far outside the image"),
        (shape([[1, 2], [3, 4], [5, 10**400]]), r"the point \[5, 10+\.\.\.0+\], which is not"),
    ],
)
def test_a_bad_shape_is_named(write, bad: dict[str, Any], problem: str) -> None:
    source = build_source(CONFIG, write(shape(), bad))
    with pytest.raises(DataError, match=problem) as caught:
        source[0]
    assert "1.json: shapes[1] " in caught.value.message


def test_a_bad_shape_of_a_group_is_named(write) -> None:
    source = build_source(CONFIG, write(shape(group_id=1), shape(kind="point", group_id=1)))
    with pytest.raises(DataError, match=r"\(shapes\[1\]\) is of the type 'point'"):
        source[0]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"shapes": {}}, "`shapes` is not a list"),
        ({"imagePath": None}, "`imagePath` names no image"),
        ({"shapes": [3]}, r"shapes\[0\] has no `label`"),
        ({"shapes": [shape(label=None)]}, r"shapes\[0\] has no `label`"),
        ({"shapes": [shape(label=3)]}, r"shapes\[0\] has the label 3, which is no text"),
        ({"shapes": [shape(label="a\ud83d")]}, r"has the label 'a\\ud83d', which is no text"),
        ({"imageHeight": "20"}, "`imageHeight` is '20', which is no number"),
    ],
)
def test_what_is_no_labelme(write, changes: dict[str, Any], problem: str) -> None:
    root = write(shape(), **changes)
    with pytest.raises(DataError, match=problem) as caught:
        build_source(CONFIG, root)
    assert "1.json is not labelme" in caught.value.message


def test_other_files(write) -> None:
    root = write(shape(), imageHeight=21)
    with pytest.raises(DataError, match=r"30 x 20 pixels, .*1\.json says 30 x 21"):
        build_source(CONFIG, root)[0]
    (root / "labelled/1.json").write_text('{"shapes": [{"label"')
    with pytest.raises(DataError, match=r"1\.json is not JSON"):
        build_source(CONFIG, root)
    (root / "labelled/1.json").unlink()
    with pytest.raises(DataError, match="holds no JSON file"):
        build_source(CONFIG, root)


def test_files_that_are_not_labelme_are_all_named_or_left_out(write) -> None:
    root = write(shape(), shape(label="disc"))
    (root / "labelled/0.json").write_text('{"shapes": [{"label"')
    (root / "labelled/2.json").write_text(json.dumps({"imagePath": "two.png", "shapes": [shape(label=None), 3]}))
    (root / "labelled/3.json").write_text('{"imagePath": "two.png", "shapes": []}')
    words = ("0.json is not JSON", "2.json is not labelme: shapes[0] has no `label`; shapes[1] has no `label`.")
    with pytest.raises(DataError) as caught:
        build_source(CONFIG, root)
    assert all(word in caught.value.message for word in words)
    faults: list[DataError] = []
    source = build_source(CONFIG, root, on_fault=faults.append)
    assert [fault.fault for fault in faults] == ["unusable", "annotation"]
    assert len(source) == source.unannotated == 1 and source[0].masks.labels.tolist() == [1, 2]
    for name in ("1.json", "one.png"):
        (root / "labelled" / name).write_text("{}")
    with pytest.raises(DataError) as caught:
        source[0]
    assert len(caught.value.parts) == 2
