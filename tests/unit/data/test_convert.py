"""Every format to every other, masks compared pixel by pixel."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.config.data import CocoConfig, FolderConfig, SetConfig, ShapesConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.data.convert import Conversion, convert
from mobilesam_core.data.targets import CocoTarget, TargetName
from mobilesam_core.errors import DataError, OutputError, UsageError
from mobilesam_core.ops.rle import encode_rle
from mobilesam_core.progress import NullReporter

TARGETS: tuple[TargetName, ...] = get_args(TargetName)
HOLD_OVERLAPS = [target for target in TARGETS if target != "instances"]
HOLD_CLASSES = ("coco", "yolo", "labelme")
CONFIG = CocoConfig(format="coco", images="photos", annotations="a.json")


class Said(NullReporter):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)

    warning = info


def masks() -> np.ndarray:
    """``(4, 24, 33)``: a ring, two parts and a pixel that touches one of them by its corner, a corner pixel, a line."""
    found = np.zeros((4, 24, 33), bool)
    found[0, 2:12, 2:12] = True
    found[0, 4:8, 5:9] = False
    found[1, 15:20, 3:9] = found[1, 15:18, 20:30] = found[1, 20, 9] = True
    found[2, 23, 32] = True
    found[3, 5, 14:30] = True
    return found


def write_coco(root: Path, images: dict[str, np.ndarray], **saved: Any) -> CocoConfig:
    """A set of these images (by file name) with these masks, of the categories 5 and 9 in turn."""
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    rng = np.random.default_rng(0)
    for number, (name, found) in enumerate(images.items()):
        path = root / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (*found.shape[1:], 3), dtype=np.uint8)).save(path, "PNG", **saved)
        records.append({"id": number, "file_name": name, "height": found.shape[1], "width": found.shape[2]})
        for index, mask in enumerate(found):
            ids = {"id": len(annotations), "image_id": number, "category_id": 9 if index % 2 else 5}
            annotations.append({**ids, "segmentation": encode_rle(mask)})
    names = [{"id": 5, "name": "cell"}, {"id": 9, "name": "long thing"}]
    document = {"images": records, "annotations": annotations, "categories": names}
    (root / "a.json").write_text(json.dumps(document))
    return CONFIG


def read_masks(config: SetConfig, root: Path) -> list[np.ndarray]:
    source = build_source(config, root)
    samples = [source[index] for index in range(len(source))]
    return [sample.masks.dense(range(len(sample.masks))) for sample in samples]


def assert_same(result: Conversion, expected: Sequence[np.ndarray]) -> None:
    found = read_masks(result.config, result.folder)
    assert len(found) == len(expected) == result.images
    assert all(np.array_equal(left, right) for left, right in zip(found, expected, strict=True))


@pytest.mark.parametrize("first", TARGETS)
def test_from_every_format_to_every_other(first: TargetName, tmp_path: Path) -> None:
    expected = [masks(), masks()[::-1, ::-1]]
    config = write_coco(tmp_path, {"a.png": expected[0], "b.png": expected[1]})
    before = convert(config, tmp_path, first, tmp_path / first)
    assert_same(before, expected)
    for second in TARGETS:
        after = convert(before.config, before.folder, second, tmp_path / f"to {second}")
        assert_same(after, expected)
        assert (after.objects, after.lost_pixels) == (8, 0)
        kept = first in HOLD_CLASSES and second in HOLD_CLASSES
        assert after.categories == (("cell", "long thing") if kept else ("object",) if second in HOLD_CLASSES else ())
        for name in ("a.png", "b.png"):
            assert (after.folder / "images" / name).read_bytes() == (tmp_path / "photos" / name).read_bytes()


@pytest.mark.parametrize("target", HOLD_CLASSES)
def test_each_object_keeps_its_class(target: TargetName, tmp_path: Path) -> None:
    result = convert(write_coco(tmp_path, {"a.png": masks()}), tmp_path, target, tmp_path / "out")
    source = build_source(result.config, result.folder)
    names = [source.categories[label] for label in source[0].masks.labels]
    assert names == ["cell", "long thing", "cell", "long thing"]


@pytest.mark.parametrize("target", HOLD_OVERLAPS)
def test_overlaps_are_kept(target: TargetName, tmp_path: Path) -> None:
    found = masks()
    found[2] = found[0] | found[1]
    found[3] = found[0]
    assert_same(convert(write_coco(tmp_path, {"a.png": found}), tmp_path, target, tmp_path / "out"), [found])


def test_overlaps_do_not_fit_into_instances(tmp_path: Path) -> None:
    over = masks()
    over[3, 2, 2:9] = over[3, 3, 2] = True
    config = write_coco(tmp_path, {"a.png": masks(), "b.png": over})
    with pytest.raises(DataError, match=r"1 of 2 images .*\n  b\.png: objects 1 and 4 overlap, in 8 pixels") as caught:
        convert(config, tmp_path, "instances", tmp_path / "out")
    assert "--lossy" in caught.value.remedy and not (tmp_path / "out").exists()
    said = Said()
    result = convert(config, tmp_path, "instances", tmp_path / "out", lossy=True, reporter=said)
    over[0] &= ~over[3]  # the smaller one lies above
    assert_same(result, [masks(), over])
    assert (result.lost_pixels, result.lost_objects) == (8, 0) and any("8 pixels" in line for line in said.lines)


def test_a_hidden_object_is_counted(tmp_path: Path) -> None:
    found = np.concatenate([masks(), masks()[:1]])
    result = convert(write_coco(tmp_path, {"a.png": found}), tmp_path, "instances", tmp_path / "out", lossy=True)
    assert (result.objects, result.lost_objects, result.lost_pixels) == (4, 1, 84)


@pytest.mark.parametrize("target", ["sa1b", "per_instance"])
def test_losing_classes_is_said(target: TargetName, tmp_path: Path) -> None:
    said = Said()
    convert(write_coco(tmp_path, {"a.png": masks()}), tmp_path, target, tmp_path / "out", reporter=said)
    assert said.lines == [f"{target} holds no classes: which of 2 an object is, is not kept."]


@pytest.mark.parametrize("target", TARGETS)
def test_turned_photographs(target: TargetName, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    config = write_coco(tmp_path, {"a.png": masks()}, exif=exif)
    upright = [np.rot90(masks(), -1, axes=(1, 2))]
    assert np.array_equal(read_masks(config, tmp_path)[0], upright[0])
    assert_same(convert(config, tmp_path, target, tmp_path / "out"), upright)


def test_images_get_names_of_their_own(tmp_path: Path) -> None:
    keys = ["a.png", "sub/a.png", "sub-a.png", "A.jpg", "../b.png", ".c.png", "no suffix", "classes.png", "v1.2.png",
            "x\\y.png"]  # fmt: skip
    config = write_coco(tmp_path, dict.fromkeys(keys, masks()))
    expected = ["a", "sub-a", "sub-a-2", "A-2", "b", "c", "no suffix", "classes-2", "v1.2", "x-y"]
    for target in TARGETS:
        result = convert(config, tmp_path, target, tmp_path / target)
        assert sorted(p.stem for p in (result.folder / "images").iterdir() if p.suffix != ".json") == sorted(expected)
        source = build_source(result.config, result.folder)
        assert len(source) == len(keys)
        for index in range(len(source)):
            assert np.array_equal(source[index].masks.dense(range(4)), masks())


@pytest.mark.parametrize("target", TARGETS)
def test_drawn_images(target: TargetName, tmp_path: Path) -> None:
    config = ShapesConfig(format="shapes", count=2, size=96, domains=("holes", "thin"))
    drawn = build_source(config, Path())
    result = convert(config, Path(), target, tmp_path / "out")
    assert_same(result, read_masks(config, Path()))
    written = build_source(result.config, result.folder)
    keyed = {Path(written[i].key).stem: written[i].image for i in range(2)}
    assert all(np.array_equal(keyed[drawn[i].key], drawn[i].image) for i in range(2))


def test_class_masks_keep_their_numbers(write_folder, two_squares: np.ndarray, tmp_path: Path) -> None:
    config = write_folder("classes", {"a": two_squares * 3})
    result = convert(config, tmp_path, "coco", tmp_path / "out")
    assert result.categories == ("class_3", "class_6")
    assert build_source(result.config, result.folder)[0].masks.labels.tolist() == [3, 6]


def test_yolo_keeps_the_numbers_of_classes(write_folder, two_squares: np.ndarray, tmp_path: Path) -> None:
    config = write_folder("classes", {"a": two_squares * 2, "b": (two_squares > 1) * np.uint8(3)})
    first = convert(config, tmp_path, "yolo", tmp_path / "first")
    names = ("class_0", "class_1", "class_2", "class_3", "class_4")
    assert first.categories == names and (first.folder / "labels/classes.txt").read_text().split() == list(names)
    (first.folder / "labels/classes.txt").write_text("\none\n\nthree\n\n\nspare\n")
    again = convert(first.config, first.folder, "yolo", tmp_path / "again")
    assert again.categories == ("class_0", "one", "class_2", "three", "class_4", "class_5", "spare")
    (first.folder / "labels/classes.txt").unlink()
    for result in (again, convert(first.config, first.folder, "yolo", tmp_path / "unnamed")):
        source = build_source(result.config, result.folder)
        assert [source[index].masks.labels.tolist() for index in range(2)] == [[2, 4], [3]]
    text = (first.folder / "labels/b.txt").read_text()
    (first.folder / "labels/b.txt").write_text("70000" + text[1:])
    with pytest.raises(
        DataError, match=r"b\.png: an object is of class 70000; classes\.txt names those from 0 to 65535"
    ):
        convert(first.config, first.folder, "yolo", tmp_path / "never")


def test_yolo_counts_the_categories_that_the_coco_file_lists(tmp_path: Path) -> None:
    write_coco(tmp_path, {"a.png": masks()[1:2] | masks()[:1]})  # one object, of category 5
    document = json.loads((tmp_path / "a.json").read_text())
    listed = [{"id": 9, "name": "long thing"}, {"id": 5, "name": " "}, {"id": 1, "name": "first"}, {"id": 7}]
    for categories, names, number in (
        (listed, ("first", "class_1", "class_7", "long thing"), 1),
        (listed[:1], ("class_5", "long thing"), 0),
        ([], tuple(f"class_{place}" for place in range(6)), 5),
    ):
        (tmp_path / "a.json").write_text(json.dumps(document | {"categories": categories}))
        result = convert(CONFIG, tmp_path, "yolo", tmp_path / f"out {len(categories)}")
        assert result.categories == names
        assert build_source(result.config, result.folder)[0].masks.labels.tolist() == [number]


def test_numbers_for_the_names_of_labelme_are_of_one_set(tmp_path: Path) -> None:
    before = convert(write_coco(tmp_path, {"a.png": masks()}), tmp_path, "labelme", tmp_path / "labelme")
    said = Said()
    result = convert(before.config, before.folder, "yolo", tmp_path / "yolo", reporter=said)
    assert result.categories == ("cell", "long thing") and any("hold for it alone" in line for line in said.lines)


def test_objects_without_pixels_are_counted(tmp_path: Path) -> None:
    write_coco(tmp_path, {"a.png": masks()})
    document = json.loads((tmp_path / "a.json").read_text())
    sliver = {"image_id": 0, "category_id": 5, "segmentation": [[0.1, 0.1, 0.2, 0.1, 0.2, 0.2]]}
    document["annotations"] += [{"id": number, **sliver} for number in range(10, 17)]
    document["annotations"][0]["bbox"] = [0, 0, 0, 0]  # odd, but kept
    (tmp_path / "a.json").write_text(json.dumps(document))
    said = Said()
    result = convert(CONFIG, tmp_path, "coco", tmp_path / "out", reporter=said)
    assert result.objects == 4 and result.to_json()["without_pixels"] == 7
    (line,) = said.lines
    assert line.startswith("7 objects without pixels are left out:\n") and "annotation 14 " in line
    assert "annotation 15 " not in line and line.endswith("… and 2 more")


def test_nothing_is_left_where_an_image_is_bad(tmp_path: Path) -> None:
    config = write_coco(tmp_path, {"a.png": masks(), "b.png": masks(), "c.png": masks()})
    (tmp_path / "photos/a.png").write_bytes(b"")
    (tmp_path / "photos/c.png").unlink()
    there = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match=r"2 of 3 images cannot be converted to yolo; nothing was written") as caught:
        convert(config, tmp_path, "yolo", tmp_path / "out")
    assert "a.png is empty" in caught.value.message and "c.png does not exist" in caught.value.message
    assert sorted(tmp_path.iterdir()) == there


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_coco(tmp_path, {"a.png": masks()})
    there = sorted(tmp_path.iterdir())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for module, name in ((shutil, "copyfile"), (CocoTarget, "finish"), (CocoTarget, "__init__")):
        with monkeypatch.context() as patch, pytest.raises(OutputError, match="disk is full"):
            patch.setattr(module, name, full)
            convert(config, tmp_path, "coco", tmp_path / "out")
        assert sorted(tmp_path.iterdir()) == there


def test_where_it_may_be_written(tmp_path: Path) -> None:
    config = write_coco(tmp_path, {"a.png": masks()})
    for taken in (tmp_path, tmp_path / "a.json"):
        with pytest.raises(UsageError, match="exists and is not an empty folder"):
            convert(config, tmp_path, "coco", taken)
    (tmp_path / "empty").mkdir()
    assert_same(convert(config, tmp_path, "coco", tmp_path / "empty"), [masks()])
    assert_same(convert(config, tmp_path, "coco", tmp_path / "new/deep"), [masks()])


def test_an_earlier_conversion_can_be_replaced_and_nothing_else(tmp_path: Path) -> None:
    config = write_coco(tmp_path, {"a.png": masks(), "b.png": masks()})
    out = tmp_path / "out"
    convert(config, tmp_path, "yolo", out)
    assert_same(convert(config, tmp_path, "coco", out, overwrite=True), [masks(), masks()])
    assert sorted(path.name for path in out.iterdir()) == ["annotations.json", "images"]
    there = sorted(tmp_path.rglob("*"))
    (out / "mine.txt").touch()
    with pytest.raises(UsageError, match=r"holds mine\.txt, which no conversion wrote"):
        convert(config, tmp_path, "coco", out, overwrite=True)
    (out / "mine.txt").unlink()
    with pytest.raises(UsageError, match="images, of the set to convert, lies in"):
        convert(CocoConfig(format="coco", images=Path("images"), annotations=Path("annotations.json")), out, "yolo",
                out, overwrite=True)  # fmt: skip
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(DataError):
        convert(config, tmp_path, "coco", out, overwrite=True)
    assert sorted(tmp_path.rglob("*")) == there, "what failed must not take the place of what was there"


def test_where_it_could_not_be_put_is_said_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_coco(tmp_path, {"a.png": masks()})
    (tmp_path / "a.json").unlink()  # which reading would find
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "dangling").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path / "empty")
    for out, problem in (
        (Path(), "is the working folder"),
        (tmp_path / "empty", "is the working folder"),
        (Path("new/.."), "is the working folder"),
        (tmp_path / "link", "is a symbolic link"),
        (tmp_path / "dangling", "is a symbolic link"),
        (tmp_path / "photos/new", "lies in .*photos, a folder of the set"),
        (tmp_path / "empty/../photos/deep/new", "lies in .*photos, a folder of the set"),
    ):
        with pytest.raises(UsageError, match=problem):
            convert(config, tmp_path, "coco", out)
    with pytest.raises(OutputError, match="File name too long"):
        convert(config, tmp_path, "coco", tmp_path / ("x" * 300))
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize("target", HOLD_OVERLAPS)
def test_real_photographs(target: TargetName, data_root: Path, tmp_path: Path) -> None:
    config = CocoConfig(format="coco", images="images", annotations="val.json")
    result = convert(config, data_root / "coco", target, tmp_path / "out")
    assert result.objects == 139
    assert_same(result, read_masks(config, data_root / "coco"))


@pytest.mark.parametrize(("name", "mode"), [("nuclei/val", "instances"), ("binary/leaf/val", "binary")])
def test_real_masks(name: str, mode: str, data_root: Path, tmp_path: Path) -> None:
    config = FolderConfig(format="folder", images="images", masks="masks", mask_mode=mode)
    for image in sorted((data_root / name / "images").iterdir())[::10]:
        for path in (image, data_root / name / "masks" / f"{image.stem}.png"):
            copy = tmp_path / path.relative_to(data_root / name)
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(path, copy)
    expected = read_masks(config, tmp_path)
    for target in TARGETS:
        assert_same(convert(config, tmp_path, target, tmp_path / target), expected)
