"""Telling the format of a folder: what `data convert` writes is told again, and what is no data gets a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.config.data import FileSetConfig, FolderConfig, MaskMode, ShapesConfig
from mobilesam_core.data.build import build_source
from mobilesam_core.data.convert import convert
from mobilesam_core.data.recognise.masks import read_masks_as
from mobilesam_core.data.recognise.splits import split_of
from mobilesam_core.data.recognise.tree import Tree
from mobilesam_core.data.recognise.workflow import mask_mode_of, recognise
from mobilesam_core.data.targets import TARGETS, TargetName
from mobilesam_core.errors import DataError, UsageError


def write_set(target: TargetName, folder: Path, count: int = 4, seed: int = 1) -> FileSetConfig:
    shapes = ShapesConfig(format="shapes", domains=("polygons",), count=count, size=64, max_shapes=5, seed=seed)
    return convert(shapes, Path(), target, folder, lossy=True).config


def square(mask: np.ndarray, x: int, y: int, value: int, side: int = 8) -> None:
    mask[y : y + side, x : x + side] = value


def photograph(seed: int, shape: tuple[int, int] = (48, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8))


def write_masks(root: Path, masks: list[np.ndarray], images: str = "images", where: str = "masks") -> None:
    for number, mask in enumerate(masks):
        for folder, picture in ((images, photograph(number)), (where, Image.fromarray(mask))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            picture.save(root / folder / f"{number}.png")


def squares(*values: int, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    for place, value in enumerate(values):
        square(mask, 2 + 12 * place, 4, value)
    return mask


@pytest.mark.parametrize("target", get_args(TargetName))
def test_what_is_written_in_a_format_is_told_again(target: TargetName, tmp_path: Path) -> None:
    written = write_set(target, tmp_path / "set")
    found = recognise(tmp_path / "set")
    source, expected = build_source(found.train, found.root), build_source(written, tmp_path / "set")
    assert found.train.format == written.format and found.val is None
    assert [len(source[i].masks) for i in range(len(source))] == [len(expected[i].masks) for i in range(len(expected))]
    assert any("There is no validation set" in remark for remark in found.remarks)
    assert set(TARGETS) == set(get_args(TargetName))


@pytest.mark.parametrize("target", get_args(TargetName))
def test_splits_are_told_by_their_names(target: TargetName, tmp_path: Path) -> None:
    for split, count, seed in (("training", 4, 1), ("valid", 2, 2), ("test", 1, 3)):
        write_set(target, tmp_path / split, count, seed)
    found = recognise(tmp_path)
    assert found.val is not None and found.remarks == ()
    sources = [build_source(each, found.root) for each in (found.train, found.val)]
    assert [len(source) for source in sources] == [4, 2]
    # Files have the same names in both.
    assert [Path(source[0].source).relative_to(tmp_path).parts[0] for source in sources] == ["training", "valid"]


def test_the_images_of_a_coco_file_are_where_all_of_them_are(tmp_path: Path) -> None:
    write_set("coco", tmp_path / "set")
    (tmp_path / "set/annotations.json").rename(tmp_path / "set/train.json")
    (tmp_path / "set/train").mkdir()
    shutil.copy(sorted((tmp_path / "set/images").iterdir())[0], tmp_path / "set/train")  # some of another kind
    assert str(recognise(tmp_path / "set").train.images) == "images"  # type: ignore[union-attr]


def test_splits_within_a_format_s_own_folders(tmp_path: Path) -> None:
    """Stems are the same in both splits, as in numbered files."""
    for split, count in (("train", 4), ("val", 2)):
        write_set("yolo", tmp_path / "set", count)
        for kind in ("images", "labels"):
            (tmp_path / kind).mkdir(exist_ok=True)
            shutil.move(tmp_path / "set" / kind, tmp_path / kind / split)
        shutil.rmtree(tmp_path / "set")
    found = recognise(tmp_path)
    assert found.train.model_dump(mode="json") == {"format": "yolo", "images": "images/train", "labels": "labels/train"}
    assert found.val is not None and len(build_source(found.val, found.root)) == 2
    found = recognise(tmp_path / "images/val")  # the images' own folder, and labels beside
    assert len(build_source(found.train, found.root)) == 2


def test_a_test_set_stands_in_for_val_and_says_so(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        write_set("instances", tmp_path / split, count)
    found = recognise(tmp_path)
    assert found.val is not None and "cannot judge the result any more" in found.remarks[0]


def test_one_coco_file_brings_its_splits(tmp_path: Path) -> None:
    written = write_set("coco", tmp_path / "all")
    content = json.loads((tmp_path / "all" / written.annotations).read_text())  # type: ignore[union-attr]
    for split, images in (("train", content["images"][:3]), ("val", content["images"][3:])):
        ids = {image["id"] for image in images}
        kept = [each for each in content["annotations"] if each["image_id"] in ids]
        text = json.dumps({**content, "images": images, "annotations": kept})
        (tmp_path / f"all/instances_{split}2017.json").write_text(text)
    found = recognise(tmp_path / "all")
    assert str(found.train.annotations) == "instances_train2017.json" and found.val is not None  # type: ignore[union-attr]
    assert "not used: annotations.json" in found.remarks[0]
    found = recognise(tmp_path / "all/instances_train2017.json")
    assert found.val is not None and found.remarks == ()


def test_a_coco_file_in_a_folder_of_its_own_finds_its_images(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 2)):
        write_set("coco", tmp_path / "set", count)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        shutil.move(tmp_path / "set/annotations.json", tmp_path / f"annotations/instances_{split}2017.json")
        shutil.move(tmp_path / "set/images", tmp_path / f"{split}2017")
        (tmp_path / "set").rmdir()
    (tmp_path / "annotations/captions_train2017.json").write_text('{"images": [{}], "annotations": [{"caption": "a"}]}')
    (tmp_path / "annotations/odd.json").write_text('{"annotations": [], "image": {}}')
    for place in (tmp_path, tmp_path / "annotations/instances_train2017.json"):
        found = recognise(place)
        assert found.root == tmp_path and found.val is not None and found.remarks == ()
        assert [len(build_source(each, found.root)) for each in (found.train, found.val)] == [4, 2]
    with pytest.raises(DataError, match=r"captions_train2017\.json is not COCO instance JSON"):
        recognise(tmp_path / "annotations/captions_train2017.json")


MODES: dict[str, tuple[list[np.ndarray], MaskMode, int | None]] = {
    "binary": ([squares(255), squares(255), squares(1)[:] * 255], "binary", None),
    "components": ([squares(255, 255), squares(255), squares(255, 255, 255)], "components", None),
    "instances": ([squares(1, 2, 3), squares(1), squares(1, 2)], "instances", None),
    "classes": ([squares(1, 1, 2), squares(2, 2), squares(1, 5, 5)], "classes", None),
    "ignored": ([squares(1, 1, 255), squares(2, 2), squares(1, 255)], "classes", 255),
    "ids of 16 bits": ([squares(1).astype(np.uint16) * 300 + squares(0, 2)], "instances", None),
}


@pytest.mark.parametrize("kind", MODES)
def test_how_masks_are_to_be_read(kind: str, tmp_path: Path) -> None:
    masks, mode, ignored = MODES[kind]
    write_masks(tmp_path, masks)
    train = recognise(tmp_path).train
    assert isinstance(train, FolderConfig)
    assert (train.mask_mode, train.ignore_index) == (mode, ignored)
    assert mask_mode_of(tmp_path / "images", tmp_path / "masks") == mode
    assert len(build_source(train, tmp_path)[0].masks) > 0


def test_a_mask_that_cannot_be_read_does_not_decide(tmp_path: Path) -> None:
    write_masks(tmp_path, [squares(1, 2), squares(1, 2, 3), squares(1)])
    (tmp_path / "masks/0.png").write_bytes(b"\x89PNG")
    assert recognise(tmp_path).train.mask_mode == "instances"  # type: ignore[union-attr]


def test_masks_saved_as_jpeg_are_binary(tmp_path: Path) -> None:
    write_masks(tmp_path, [squares(255), squares(255)])
    for number in range(2):
        mask = Image.open(tmp_path / f"masks/{number}.png")
        mask.save(tmp_path / f"masks/{number}.jpg", quality=60)
        (tmp_path / f"masks/{number}.png").unlink()
    assert recognise(tmp_path).train.mask_mode == "binary"  # type: ignore[union-attr]


def test_the_folder_called_masks_is_taken_and_others_are_named(tmp_path: Path) -> None:
    write_masks(tmp_path, [squares(255), squares(255)])
    write_masks(tmp_path, [squares(1, 2, 2), squares(1, 1)], where="class_masks")
    found = recognise(tmp_path)
    assert str(found.train.masks) == "masks" and "not used: class_masks" in found.remarks[-1]  # type: ignore[union-attr]


def test_colours_that_stand_for_objects_are_refused(tmp_path: Path) -> None:
    colours = np.stack([squares(200, 0, 9), squares(0, 90), squares(0, 0, 250)], axis=2)
    write_masks(tmp_path, [colours, colours])
    with pytest.raises(DataError, match=r"is a mask of 3 colours.*Save ids or classes as grey"):
        recognise(tmp_path)


def several_sets(root: Path) -> None:
    write_set("instances", root / "cells")
    write_set("coco", root / "street")


def no_masks(root: Path) -> None:
    photograph(1).save(root / "a.png")
    (root / "notes.txt").write_text("hello")


def boxes_of_coco(root: Path) -> None:
    no_masks(root)
    image = {"id": 1, "file_name": "a.png", "height": 48, "width": 64}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5]}
    (root / "boxes.json").write_text(json.dumps({"images": [image], "annotations": [annotation]}))


def boxes_of_yolo(root: Path) -> None:
    no_masks(root)
    (root / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")


def lost_images(root: Path) -> None:
    write_set("coco", root / "set")
    shutil.rmtree(root / "set/images")


def masks_beside_images(root: Path) -> None:
    photograph(1).save(root / "cat.jpg")
    Image.fromarray(squares(255)).save(root / "cat_mask.png")


def empty_masks(root: Path) -> None:
    write_masks(root, [squares(0), squares(0)])


@pytest.mark.parametrize(
    ("make", "error", "part"),
    [
        (several_sets, UsageError, "holds several data sets, with images in cells/images, street/images"),
        (no_masks, DataError, "holds 1 images, 0 JSON and 1 text files, and no masks that can be told. Training needs"),
        (boxes_of_coco, DataError, "boxes.json is COCO with boxes and no masks"),
        (boxes_of_yolo, DataError, "are YOLO's boxes, which are no masks"),
        (lost_images, DataError, "its images, such as "),
        (masks_beside_images, DataError, "cat_mask.png seems to be the mask of cat.jpg"),
        (empty_masks, DataError, "mark no object"),
        (lambda root: None, DataError, "holds 0 images"),
    ],
)
def test_what_cannot_be_told_gets_a_sentence(make: Any, error: type[Exception], part: str, tmp_path: Path) -> None:
    folder = tmp_path / "of/data"  # labels are looked for two folders above, where those of other tests may lie
    folder.mkdir(parents=True)
    make(folder)
    with pytest.raises(error) as caught:
        recognise(folder)
    assert part in str(caught.value)


def test_a_place_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no"):
        recognise(tmp_path / "nothing")
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(UsageError, match="is a file"):
        recognise(tmp_path / "a.zip")


def test_links_in_circles_are_followed_once(tmp_path: Path) -> None:
    write_set("instances", tmp_path / "set")
    (tmp_path / "set/again").symlink_to(tmp_path, target_is_directory=True)
    assert len(Tree(tmp_path).folders) == 4
    assert recognise(tmp_path).train.format == "folder"


@pytest.mark.parametrize(
    ("place", "split"),
    [
        ("train/images", "train"),
        ("images/train2017", "train"),
        ("annotations/instances_val2017.json", "val"),
        ("Validation", "val"),
        ("trained/masks", None),
        ("interval", None),
    ],
)
def test_names_of_splits(place: str, split: str | None) -> None:
    assert split_of(Path(place)) == split


def test_masks_without_objects_and_files() -> None:
    with pytest.raises(DataError, match="no mask that can be read"):
        read_masks_as([Path("none/1.png")])
    assert mask_mode_of(Path("none"), Path("none")) is None


def test_a_file_that_is_named_is_read_and_one_that_is_broken_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "of/data"
    folder.mkdir(parents=True)
    no_masks(folder)
    (folder / "broken.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"broken\.json: .* is not JSON"):
        recognise(folder)
    with pytest.raises(DataError, match="is not JSON"):
        recognise(folder / "broken.json")
    for number in range(25):
        (folder / f"{number:02d}.json").write_text("{}")
    image = {"id": 1, "file_name": "a.png", "height": 48, "width": 64}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]], "bbox": [1, 1, 8, 8]}
    (folder / "zz.json").write_text(json.dumps({"images": [image], "annotations": [{**annotation, "area": 32}]}))
    assert recognise(folder / "zz.json").train.format == "coco"
