from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilesam_core.config.data import FolderConfig
from mobilesam_core.data.folder import FolderSource
from mobilesam_core.errors import DataError


def test_mask_modes(write_folder, two_squares: np.ndarray, tmp_path: Path) -> None:
    two_squares[0, 0] = 2  # id 2 has two parts
    two_squares[39, 0] = 255
    expected = {
        "binary": ([1], [327]),
        "components": ([1, 2, 3, 4], [1, 100, 225, 1]),
        "instances": ([1, 2, 255], [100, 226, 1]),
        "classes": ([1, 2], [100, 226]),
    }
    for mode, (labels, areas) in expected.items():
        options = {"ignore_index": 255} if mode == "classes" else {}
        source = FolderSource(write_folder(mode, {"a": two_squares}, **options), tmp_path)
        sample = source[0]
        assert len(source) == 1 and sample.key == "a.png" and sample.source == source.describe(0)
        assert sample.image.shape == (40, 60, 3) and sample.masks.shape == (40, 60)
        assert sample.masks.labels.tolist() == labels
        assert sorted(sample.masks.areas.tolist()) == sorted(areas)


def test_a_folder_of_masks_an_image(write_folder, two_squares: np.ndarray, tmp_path: Path) -> None:
    config = write_folder("per_instance", {"a": two_squares})
    (tmp_path / "masks/a.png").unlink()
    (tmp_path / "masks/a").mkdir()
    for number, mask in enumerate([two_squares == 1, two_squares > 0]):  # masks may overlap
        Image.fromarray(mask).save(tmp_path / f"masks/a/{number}.png")
    masks = FolderSource(config, tmp_path)[0].masks
    assert masks.areas.tolist() == [100, 325] and masks.labels.tolist() == [1, 2]
    assert np.array_equal(masks.dense([1])[0], two_squares > 0)
    Image.fromarray(np.zeros_like(two_squares)).save(tmp_path / "masks/a/2.png")
    with pytest.raises(DataError, match=r"a.2\.png is empty: it marks no object"):
        FolderSource(config, tmp_path)[0]
    for path in (tmp_path / "masks/a").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="holds no mask"):
        FolderSource(config, tmp_path)[0]


def test_grey_samples(write_folder, two_squares: np.ndarray, tmp_path: Path) -> None:
    source = FolderSource(write_folder("instances", {"a": two_squares}), tmp_path, channels=1)
    assert source[0].image.shape == (40, 60)


def test_every_unpaired_stem_is_listed(write_folder, two_squares: np.ndarray, tmp_path: Path) -> None:
    config = write_folder("binary", dict.fromkeys("abcde", two_squares))
    for gone in ("masks/a.png", "masks/b.png", "images/d.png"):
        (tmp_path / gone).unlink()
    Image.fromarray(two_squares).save(tmp_path / "images/e.tif")
    (tmp_path / "images/.hidden.png").touch()
    (tmp_path / "images/notes.txt").touch()
    with pytest.raises(DataError) as caught:
        FolderSource(config, tmp_path)
    message = caught.value.message
    assert "images without a mask (2): a, b" in message
    assert "masks without an image (1): d" in message
    assert "stems of several images (1): e" in message
    assert "notes" not in message and "hidden" not in message and caught.value.remedy


def test_files_that_do_not_pair_up_can_be_left_out(write_folder, two_squares: np.ndarray, tmp_path: Path) -> None:
    config = write_folder("binary", dict.fromkeys("abcd", two_squares))
    (tmp_path / "masks/a.png").unlink()
    (tmp_path / "images/b.png").unlink()
    Image.fromarray(two_squares).save(tmp_path / "images/d.tif")
    faults: list[DataError] = []
    source = FolderSource(config, tmp_path, on_fault=faults.append)
    assert [source[index].key for index in range(len(source))] == ["c.png"]
    said = [fault.message.replace(str(tmp_path) + "/", "") for fault in faults]
    assert said == [
        "images/a.png has no mask.",
        "masks/b.png has no image.",
        "images/d.png and images/d.tif are images of one stem.",
    ]
    assert {fault.fault for fault in faults} == {"unpaired"}
    (tmp_path / "masks/c.png").unlink()
    with pytest.raises(DataError, match=r"No image of .* has its mask"):
        FolderSource(config, tmp_path, on_fault=faults.append)


def test_all_that_is_wrong_with_a_pair_is_named(write_folder, two_squares: np.ndarray, tmp_path: Path) -> None:
    source = FolderSource(write_folder("binary", {"a": two_squares}), tmp_path)
    for path in ("images/a.png", "masks/a.png"):
        (tmp_path / path).write_bytes(b"")
    with pytest.raises(DataError) as caught:
        source[0]
    assert [part.message.endswith("a.png is empty (0 bytes).") for part in caught.value.parts] == [True, True]
    assert all(part.message in caught.value.message for part in caught.value.parts)


def test_all_bad_masks_of_an_image_are_named(write_folder, two_squares: np.ndarray, tmp_path: Path) -> None:
    config = write_folder("per_instance", {"a": two_squares})
    (tmp_path / "masks/a").mkdir()
    for name, mask in {"0": two_squares, "1": two_squares * 0, "2": two_squares[1:]}.items():
        Image.fromarray(mask).save(tmp_path / f"masks/a/{name}.png")
    with pytest.raises(DataError) as caught:
        FolderSource(config, tmp_path)[0]
    assert [part.fault for part in caught.value.parts] == ["empty", "size"]


@pytest.mark.parametrize("key", ["images", "masks"])
def test_missing_folders_are_named(key: str, tmp_path: Path) -> None:
    paths = {"images": tmp_path, "masks": tmp_path, key: tmp_path / "nowhere"}
    with pytest.raises(DataError, match="nowhere does not exist") as caught:
        FolderSource(FolderConfig(format="folder", mask_mode="binary", **paths), Path())
    assert f"`{key}`" in caught.value.remedy


def test_a_folder_without_images(tmp_path: Path) -> None:
    config = FolderConfig(format="folder", images=tmp_path, masks=tmp_path, mask_mode="binary")
    with pytest.raises(DataError, match="holds no image"):
        FolderSource(config, Path())


def test_empty_mask_and_wrong_size(write_folder, two_squares: np.ndarray, tmp_path: Path) -> None:
    source = FolderSource(write_folder("components", {"a": two_squares * 0, "b": two_squares}), tmp_path)
    with pytest.raises(DataError, match=r"masks.a\.png is empty: it marks no object"):
        source[0]
    Image.fromarray(two_squares[:-1]).save(tmp_path / "masks/b.png")
    with pytest.raises(DataError, match=r"masks.b\.png is 60 x 39 pixels, its image 60 x 40"):
        source[1]


def test_a_mask_in_the_raw_frame_turns_with_its_image(write_folder, two_squares: np.ndarray, tmp_path: Path) -> None:
    config = write_folder("binary", {"a": two_squares})
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "images/a.png"
    Image.open(path).save(path, exif=exif)
    sample = FolderSource(config, tmp_path)[0]
    assert sample.image.shape == (60, 40, 3)
    assert np.array_equal(sample.masks.dense([0])[0], sample.image[..., 0] > 100)
    Image.fromarray(np.rot90(two_squares, -1)).save(tmp_path / "masks/a.png")  # a mask drawn on the upright image
    sample = FolderSource(config, tmp_path)[0]
    assert np.array_equal(sample.masks.dense([0])[0], sample.image[..., 0] > 100)


@pytest.mark.parametrize(
    ("folder", "masks", "mode", "images", "objects"),
    [
        ("nuclei/val", "masks", "instances", 30, 924),
        ("binary/leaf/val", "masks", "binary", 8, 8),
        ("binary/leaf/val", "class_masks", "classes", 8, 13),
        ("binary/pothole/val", "masks", "binary", 8, 8),
    ],
)
def test_real_sets(data_root: Path, folder: str, masks: str, mode: str, images: int, objects: int) -> None:
    config = FolderConfig(format="folder", images="images", masks=masks, mask_mode=mode)
    source = FolderSource(config, data_root / folder)
    samples = [source[index] for index in range(len(source))]
    assert len(samples) == images and sum(len(sample.masks) for sample in samples) == objects
    assert all(sample.image.ndim == 3 and sample.image.dtype == np.uint8 for sample in samples)
