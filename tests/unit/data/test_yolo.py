from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.config.data import YoloConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.errors import DataError

CONFIG = YoloConfig(format="yolo", images="images", labels="labels")
SQUARE = "0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6"  # of 20 x 30 pixels: x from 3 to 15, y from 2 to 12


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes images of 30 x 20 pixels with the labels of these texts; None is no file."""

    def write(**labels: str | None) -> Path:
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir()
        for stem, text in labels.items():
            Image.new("L", (30, 20)).save(tmp_path / f"images/{stem}.png")
            if text is not None:
                (tmp_path / f"labels/{stem}.txt").write_text(text)
        return tmp_path

    return write


def test_a_line_is_an_object(write) -> None:
    root = write(a=f"3 {SQUARE}\n\n0 0 0 1.0000001 0 1 1 0 1\n")
    source = build_source(CONFIG, root)
    sample = source[0]
    assert sample.key == "a.png" and sample.source == source.describe(0) == str(root / "images/a.png")
    assert sample.masks.labels.tolist() == [3, 0] and sample.masks.areas.tolist() == [120, 600]
    expected = np.zeros((20, 30), bool)
    expected[2:12, 3:15] = True
    assert np.array_equal(sample.masks.dense([0])[0], expected)


def test_images_without_labels_are_left_out_and_counted(write) -> None:
    source = build_source(CONFIG, write(a=None, b="", c=" \n", d=f"0 {SQUARE}"))
    assert [source[i].key for i in range(len(source))] == ["d.png"] and source.unannotated == 3


def test_class_names(write) -> None:
    root = write(a=f"1 {SQUARE}")
    assert build_source(CONFIG, root).categories == {}
    (root / "labels/classes.txt").write_text("leaf\nbig spot\n")
    assert build_source(CONFIG, root).categories == {0: "leaf", 1: "big spot"}


def test_suffixes_in_capitals_blank_files_and_broken_links(write) -> None:
    root = write(a=None, b=None, c="\ufeff \n", d="\n" * 999, e="\n" * 999 + f"1 {SQUARE}", classes=None)
    (root / "labels/a.TXT").write_text(f"0 {SQUARE}")
    (root / "labels/CLASSES.txt").write_text("leaf\n")
    (root / "labels/b.txt").symlink_to("nowhere")
    source = build_source(CONFIG, root)
    assert [source.describe(index)[-5:] for index in range(len(source))] == ["a.png", "b.png", "e.png"]
    assert source.categories == {0: "leaf"} and source.unannotated == 3
    assert source[0].masks.labels.tolist() == [0] and source[2].masks.labels.tolist() == [1]
    with pytest.raises(DataError, match=r"b\.txt cannot be read"):
        source[1]
    (root / "labels/classes.txt").write_text(f"2 {SQUARE}")  # of the image of that name
    source = build_source(CONFIG, root)
    assert source.categories == {0: "leaf"} and source[2].masks.labels.tolist() == [2]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0 0.1 0.1 0.5 0.5", "4 coordinates: that is a box, or 2 points"),
        ("0 0.1 0.1", "2 coordinates; a polygon has"),
        (f"0 {SQUARE} 0.7", "9 coordinates"),
        ("0", "0 coordinates"),
        (f"-1 {SQUARE}", "the class '-1'"),
        (f"1.5 {SQUARE}", "the class '1.5'"),
        ("0 0.1 0.1 1.5 0.1 0.5 0.6", "the coordinate 1.5; they are shares"),
        ("0 0.1 0.1 -0.2 0.1 0.5 0.6", "the coordinate -0.2; they are shares"),
        ("0 12 40 200 40 200 90", "the coordinate 12; they are shares"),
        ("0 0.1 0.1 nan 0.1 0.5 0.6", "the coordinate nan"),
        ("0 0.1 0.1 x 0.1 0.5 0.6", "the coordinate 'x', which is no number"),
    ],
)
def test_a_bad_line_is_named(write, line: str, problem: str) -> None:
    source = build_source(CONFIG, write(a=f"0 {SQUARE}\n\n{line}\n"))
    with pytest.raises(DataError, match=problem) as caught:
        source[0]
    assert "a.txt: line 3 has " in caught.value.message


def test_bad_lines_are_all_listed_and_slivers_left_out(write) -> None:
    source = build_source(CONFIG, write(a=f"0 1 2\n0 {SQUARE}\nx {SQUARE}", b="0 0.5 0.5 0.501 0.5 0.501 0.501"))
    with pytest.raises(DataError, match=r"line 1 .*line 3 "):
        source[0]
    with pytest.raises(DataError, match="no object covers a single pixel"):
        source[1]


def test_sets_as_a_whole(write) -> None:
    root = write(a=None)
    with pytest.raises(DataError, match="None of the 1 images of"):
        build_source(CONFIG, root)
    (root / "labels/a.txt").write_text(f"0 {SQUARE}")
    (root / "labels/b.txt").write_text(f"0 {SQUARE}")
    with pytest.raises(DataError, match=r"label files without an image \(1\): b"):
        build_source(CONFIG, root)
    (root / "labels/b.txt").unlink()
    (root / "labels/a.txt").write_bytes(b"\xff" * 20)
    with pytest.raises(DataError, match=r"a\.txt is not text"):
        build_source(CONFIG, root)[0]
    with pytest.raises(DataError, match="nowhere does not exist"):
        build_source(YoloConfig(format="yolo", images="images", labels="nowhere"), root)


def test_what_can_be_left_out(write) -> None:
    root = write(a=f"0 {SQUARE}", b=f"0 {SQUARE}\n1 0.5 0.5 0.501 0.5 0.501 0.501")
    (root / "labels/c.txt").write_text(f"0 {SQUARE}")
    (root / "labels/classes.txt").write_bytes(b"\xff" * 20)
    faults: list[DataError] = []
    source = build_source(CONFIG, root, on_fault=faults.append)
    assert [source.describe(index)[-5:] for index in range(len(source))] == ["a.png", "b.png"]
    assert source.categories == {} and [fault.fault for fault in faults] == ["unpaired", "unusable"]
    assert "c.txt has no image" in faults[0].message and "classes.txt is not text" in faults[1].message
    assert source[0].remarks == ()
    assert source[1].remarks == (f"{root / 'labels/b.txt'}: line 2 covers no pixel and is left out.",)
    for path in ("images/a.png", "labels/a.txt"):
        (root / path).write_bytes(b"\xff" * 20)
    with pytest.raises(DataError) as caught:
        source[0]
    assert len(caught.value.parts) == 2
