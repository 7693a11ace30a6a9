from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from mobilesam_core.data.reading import read_binary_mask, read_image, read_label_map, upright
from mobilesam_core.errors import DataError

RGB = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
GREY = RGB[..., 0]


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def test_colour_grey_and_alpha(tmp_path: Path) -> None:
    assert np.array_equal(read_image(save(tmp_path / "rgb.png", RGB)), RGB)
    grey = save(tmp_path / "grey.png", GREY)
    assert np.array_equal(read_image(grey), np.stack([GREY] * 3, axis=2))
    assert np.array_equal(read_image(grey, channels=1), GREY)
    rgba = save(tmp_path / "rgba.png", np.dstack([RGB, GREY]))
    assert np.array_equal(read_image(rgba), RGB)  # alpha is dropped, not composited
    assert read_image(rgba, channels=1).shape == (12, 17)
    la = save(tmp_path / "la.png", np.dstack([GREY, RGB[..., 1]]))
    assert np.array_equal(read_image(la)[..., 1], GREY)


def test_palette_bilevel_and_cmyk(tmp_path: Path) -> None:
    palette = Image.fromarray(GREY % 4).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 1, 2, 3])
    palette.save(tmp_path / "p.png", transparency=b"\x00\x80\xff")
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [1, 2, 3]], np.uint8)
    assert np.array_equal(read_image(tmp_path / "p.png"), colours[np.asarray(palette)])
    save(tmp_path / "bit.png", GREY > 99)
    assert np.array_equal(read_image(tmp_path / "bit.png")[..., 2], np.where(GREY > 99, 255, 0))
    Image.new("CMYK", (8, 6), (255, 0, 0, 0)).save(tmp_path / "cmyk.jpg", quality=95)
    red, green, blue = read_image(tmp_path / "cmyk.jpg")[3, 4].astype(int)
    assert red < 40 and green > 150 and blue > 150


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_are_scaled_over_their_own_range(tmp_path: Path, suffix: str) -> None:
    deep = np.linspace(500, 4595, 12 * 17).reshape(12, 17).astype(np.uint16)  # 12 bits in 16
    expected = np.rint((deep - 500.0) / 4095 * 255).astype(np.uint8)
    image = read_image(save(tmp_path / f"deep{suffix}", deep))
    assert np.array_equal(image, np.stack([expected] * 3, axis=2))
    colour = np.stack([deep, deep // 2 + 250, np.full_like(deep, 500)], axis=2)
    cv2.imwrite(str(tmp_path / f"colour{suffix}"), colour[..., ::-1])
    image = read_image(tmp_path / f"colour{suffix}")
    assert np.array_equal(image[..., 0], expected) and image[..., 2].max() == 0
    assert np.abs(image[..., 1].astype(int) - expected / 2).max() <= 1


def test_constant_and_float_images(tmp_path: Path) -> None:
    assert read_image(save(tmp_path / "flat.png", np.full((4, 5), 7000, np.uint16))).max() == 0
    ramp = np.linspace(-1, 1, 20, dtype=np.float32).reshape(4, 5)
    image = read_image(save(tmp_path / "ramp.tif", ramp))
    assert image.min() == 0 and image.max() == 255
    ramp[2, 2] = np.nan
    with pytest.raises(DataError, match=r"nan\.tif holds values that are not finite"):
        read_image(save(tmp_path / "nan.tif", ramp))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"turned{suffix}", RGB, exif=exif)
    with Image.open(path) as image:
        image.load()
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_image(path), expected)
    if suffix == ".png":
        assert np.array_equal(upright(RGB, orientation), expected)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = save(tmp_path / f"cut{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    empty, text = tmp_path / f"empty{suffix}", tmp_path / f"text{suffix}"
    empty.touch()
    text.write_text("I am no image")
    for bad, problem in [
        (path, "cannot be read|not an image"),
        (empty, "is empty"),
        (text, "not an image"),
        (tmp_path / "absent.png", "does not exist"),
    ]:
        for read in (read_image, lambda path: read_label_map(path, (64, 64))):
            with pytest.raises(DataError, match=problem) as caught:
                read(bad)
            assert str(bad) in caught.value.message and caught.value.remedy


@pytest.mark.parametrize("kind", ["uint8", "uint16", "palette", "int32", "float32", "bool", "same rgb"])
def test_ids_are_exact(tmp_path: Path, kind: str) -> None:
    ids = np.arange(12 * 17).reshape(12, 17)
    if kind == "palette":
        image = Image.fromarray(ids.astype(np.uint8)).convert("P")
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
        image.save(tmp_path / "ids.png")
        path = tmp_path / "ids.png"
    elif kind == "same rgb":
        path = save(tmp_path / "ids.png", np.stack([ids.astype(np.uint8)] * 3, axis=2))
    else:
        ids = ids * 300 if kind in ("uint16", "int32") else ids % 2 if kind == "bool" else ids
        path = save(tmp_path / ("ids.tif" if kind in ("int32", "float32") else "ids.png"), ids.astype(kind))
    found = read_label_map(path, (12, 17))
    assert np.array_equal(found, ids) and found.dtype.kind in "ui"


def test_what_is_no_id_map(tmp_path: Path) -> None:
    fractions = np.full((12, 17), 1.5, np.float32)
    for path, problem in [
        (save(tmp_path / "colour.png", RGB), "colour image"),
        (save(tmp_path / "lossy.jpg", GREY), "does not keep ids"),
        (save(tmp_path / "fraction.tif", fractions), "fractions"),
        (save(tmp_path / "negative.tif", np.full((12, 17), -1, np.int32)), "negative"),
    ]:
        with pytest.raises(DataError, match=problem):
            read_label_map(path, (12, 17))


@pytest.mark.parametrize("kind", ["L", "RGB", "RGBA", "LA", "P", "1", "I;16", "F", "jpg"])
def test_binary_masks_of_any_kind(tmp_path: Path, kind: str) -> None:
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    blue = np.zeros((40, 60, 3), np.uint8)
    blue[mask] = (0, 0, 200)
    opaque = np.full((40, 60), 255, np.uint8)
    pixels = {
        "L": mask.astype(np.uint8),
        "RGB": blue,
        "RGBA": np.dstack([blue, opaque]),
        "LA": np.dstack([mask.astype(np.uint8) * 9, opaque]),
        "1": mask,
        "I;16": mask.astype(np.uint16) * 256,
        "F": mask.astype(np.float32) / 2,
        "P": mask.astype(np.uint8),
        "jpg": mask.astype(np.uint8) * 255,
    }[kind]
    suffix = {"F": ".tif", "jpg": ".jpg"}.get(kind, ".png")
    image = Image.fromarray(pixels)
    if kind == "P":
        image = image.convert("P")
        image.putpalette([255, 255, 255, 0, 0, 0])  # the index counts, not the colour
    image.save(tmp_path / f"mask{suffix}")
    assert np.array_equal(read_binary_mask(tmp_path / f"mask{suffix}", (40, 60)), mask)


def test_sizes_and_the_raw_frame_of_a_rotated_image(tmp_path: Path) -> None:
    path = save(tmp_path / "mask.png", GREY)
    with pytest.raises(DataError, match=r"17 x 12 pixels, its image 12 x 17"):
        read_label_map(path, (17, 12))
    assert np.array_equal(read_label_map(path, (17, 12), orientation=6), np.rot90(GREY, -1))
    assert np.array_equal(read_label_map(path, (12, 17), orientation=6), GREY)
    with pytest.raises(DataError, match="must have the size"):
        read_binary_mask(path, (30, 12), orientation=6)
